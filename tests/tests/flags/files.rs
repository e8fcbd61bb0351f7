//! A container's files: `cp` both ways, `diff`, `export`, `commit`.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use harness::{Cmd, Host, Output, eventually};

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(
        cp_keeps_content_mode_time_and_owner_both_ways,
        "cp",
        "cp --archive",
        "cp -a",
        "cp --quiet",
        "cp -q"
    ),
    cell!(
        cp_gives_files_to_the_containers_user_when_asked,
        "cp --archive"
    ),
    cell!(cp_reads_paths_as_docker_does, "cp"),
    cell!(cp_follows_links_when_asked, "cp --follow-link", "cp -L"),
    cell!(cp_streams_tars, "cp"),
    cell!(
        cp_works_on_created_and_stopped_containers_with_their_volumes,
        "cp"
    ),
    cell!(cp_refuses_what_cannot_be_meant, "cp"),
    cell!(cp_respects_what_is_read_only, "cp"),
    cell!(cp_keeps_links_holes_attributes_and_special_files, "cp"),
    cell!(cp_never_leaves_a_container_that_swaps_its_directories, "cp"),
    cell!(cp_does_not_follow_a_hostile_archive, "cp"),
    cell!(cp_copes_with_a_file_that_is_being_written, "cp"),
    cell!(diff_tells_added_changed_and_deleted, "diff"),
    cell!(
        export_is_the_flat_tree,
        "export",
        "export --output",
        "export -o"
    ),
    cell!(
        commit_makes_an_image_of_the_changes,
        "commit",
        "commit --author",
        "commit -a",
        "commit --message",
        "commit -m",
        "commit --change",
        "commit -c",
        "commit --pause",
        "commit -p",
    ),
    cell!(commit_refuses_bad_changes_and_names, "commit --change"),
];

/// Starts a container that runs a script and then stays.
#[track_caller]
fn stays(host: &Host, name: &str, options: &[&str], script: &str) {
    let script = format!("{script}\ntouch /tmp/ready; sleep 1000");
    let words = ["run", "-d", "--stop-timeout", "0", "--name", name];
    let command = ["busybox", "sh", "-c", &script];
    host.coracle(words.iter().chain(options).chain(&command))
        .ok();
    eventually("the script is done", || {
        let found = host.try_run(&format!("exec {name} ls /tmp/ready"));
        if found.code() == 0 {
            Ok(())
        } else {
            Err(found)
        }
    });
}

#[track_caller]
fn shell(host: &Host, name: &str, script: &str) -> String {
    host.coracle(["exec", name, "sh", "-c", script]).ok().stdout
}

fn place(host: &Host, name: &str) -> PathBuf {
    let path = host.folder().join("files").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

#[track_caller]
fn cp(host: &Host, from: &str, to: &str) -> Output {
    host.coracle(["cp", from, to])
}

fn cp_keeps_content_mode_time_and_owner_both_ways() {
    let host = Host::new();
    stays(&host, "c1", &[], "mkdir /tmp/in");
    let file = place(&host, "file");
    fs::write(&file, "text").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(&file, Some(1234), Some(2345)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
    host.tool("touch", ["-d", "@1000000000", file.to_str().unwrap()])
        .ok();
    for (options, target) in [
        (&[][..], "/tmp/in/a"),
        (&["-a"], "/tmp/in/b"),
        (&["--archive", "--quiet"], "/tmp/in/c"),
    ] {
        let words = ["cp"].iter().chain(options).copied();
        let to = format!("c1:{target}");
        let said = host
            .coracle(words.chain([file.to_str().unwrap(), &to]))
            .ok();
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""));
        let stat = shell(
            &host,
            "c1",
            &format!("stat -c '%a %u %g %Y' {target}; cat {target}"),
        );
        assert_eq!(stat, "4751 1234 2345 1000000000\ntext", "{target}");
    }
    let back = place(&host, "back");
    host.coracle(["cp", "-q", "c1:/tmp/in", back.to_str().unwrap()])
        .ok();
    let found = fs::metadata(back.join("a")).unwrap();
    assert_eq!(fs::read_to_string(back.join("a")).unwrap(), "text");
    assert_eq!(
        (found.mode() & 0o7777, found.mtime()),
        (0o4751, 1_000_000_000)
    );
    // Out of a container it is the caller's.
    assert_eq!((found.uid(), found.gid()), (0, 0));
}

fn cp_gives_files_to_the_containers_user_when_asked() {
    let host = Host::new();
    stays(&host, "c1", &["-u", "1000:1001"], "true");
    let file = place(&host, "file");
    fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    host.coracle(["cp", "-a", file, "c1:/tmp/a"]).ok();
    host.coracle(["cp", file, "c1:/tmp/b"]).ok();
    assert_eq!(
        shell(&host, "c1", "stat -c '%u %g' /tmp/a /tmp/b"),
        "1000 1001\n0 0\n"
    );
}

/// Each line's outcome is what Docker 20.10 gives: the table was run on both.
fn cp_reads_paths_as_docker_does() {
    let host = Host::new();
    stays(
        &host,
        "c1",
        &[],
        "mkdir -p /d/sub; echo a >/d/a; echo b >/d/sub/b; ln -s /d /ld; echo f >/f",
    );
    for (source, target, found) in [
        ("/f", "dst", Ok("dst/f")),
        ("/f", "dst/", Ok("dst/f")),
        ("/f", "new", Ok("new")),
        ("/f", "new/", Err("no such directory")),
        ("/f", "old", Ok("old")),
        ("/f", "nope/x", Err("does not exist")),
        ("/f/", "new", Err("not a directory")),
        ("/d", "dst", Ok("dst/d/sub/b")),
        ("/d/.", "dst", Ok("dst/sub/b")),
        ("/d", "new", Ok("new/sub/b")),
        ("/d/.", "new", Ok("new/sub/b")),
        ("/d", "new/", Ok("new/sub/b")),
        ("/d", "old", Err("cannot copy directory")),
        ("/ld", "new", Ok("new")),
        ("/ld/", "dst", Ok("dst/ld/sub/b")),
        ("/ld/.", "dst", Ok("dst/sub/b")),
        ("/f", "dangling", Ok("nowhere")),
        (
            "/f",
            "/dev/null",
            Err("must be a directory or a regular file: got a device"),
        ),
        (
            "/nope",
            "new",
            Err("Could not find the file /nope in container c1"),
        ),
    ] {
        let here = place(&host, "here");
        let _ = fs::remove_dir_all(&here);
        fs::create_dir_all(here.join("dst")).unwrap();
        fs::write(here.join("old"), "old").unwrap();
        symlink("nowhere", here.join("dangling")).unwrap();
        let to = match target.starts_with('/') {
            true => target.to_owned(),
            false => format!("{}/{target}", here.display()),
        };
        let done = cp(&host, &format!("c1:{source}"), &to);
        match found {
            Ok(path) => {
                done.ok();
                let path = here.join(path);
                assert!(path.symlink_metadata().is_ok(), "{source} {target}");
            }
            Err(text) => drop(done.exits(1).complains(text)),
        }
    }
    let from = place(&host, "from");
    fs::create_dir_all(from.join("x")).unwrap();
    fs::write(from.join("x/y"), "y").unwrap();
    fs::write(place(&host, "one"), "1").unwrap();
    symlink("from", place(&host, "lfrom")).unwrap();
    for (source, target, found) in [
        ("one", "/e", Ok("/e/one")),
        ("one", "/e/", Ok("/e/one")),
        ("one", "/e/new", Ok("/e/new")),
        ("one", "/e/new/", Err("no such directory")),
        ("one", "/f", Ok("/f")),
        ("one", "/f/", Err("no such directory")),
        ("one", "/d/sub", Ok("/d/sub/one")),
        ("one", "/ld", Ok("/d/one")),
        (
            "one",
            "/nope/x",
            Err("Could not find the file /nope in container c1"),
        ),
        ("from", "/e", Ok("/e/from/x/y")),
        ("from/.", "/e", Ok("/e/x/y")),
        ("from", "/e/new", Ok("/e/new/x/y")),
        ("from", "/f", Err("cannot copy directory")),
        ("lfrom/", "/e", Ok("/e/lfrom/x/y")),
        ("nope", "/e", Err("no such file or directory")),
    ] {
        shell(&host, "c1", "rm -rf /e /d/one; mkdir /e");
        let from = place(&host, source);
        let from = match source.ends_with(['/', '.']) {
            true => format!("{}/{source}", host.folder().join("files").display()),
            false => from.display().to_string(),
        };
        let done = cp(&host, &from, &format!("c1:{target}"));
        match found {
            Ok(path) => {
                done.ok();
                shell(&host, "c1", &format!("test -e {path}"));
            }
            Err(text) => drop(done.exits(1).complains(text)),
        }
    }
}

fn cp_follows_links_when_asked() {
    let host = Host::new();
    stays(&host, "c1", &[], "echo f >/f; ln -s /f /lf; mkdir /e");
    for option in ["-L", "--follow-link"] {
        let to = place(&host, &option.replace('-', "x"));
        host.coracle(["cp", option, "c1:/lf", to.to_str().unwrap()])
            .ok();
        assert_eq!(fs::read_to_string(&to).unwrap(), "f\n");
        assert!(!to.symlink_metadata().unwrap().is_symlink());
    }
    let link = place(&host, "link");
    symlink("xL", &link).unwrap();
    let link = link.to_str().unwrap();
    host.coracle(["cp", "-L", link, "c1:/e/"]).ok();
    host.coracle(["cp", link, "c1:/e/kept"]).ok();
    assert_eq!(
        shell(&host, "c1", "cat /e/link; readlink /e/kept"),
        "f\nxL\n"
    );
    let broken = host.coracle(["cp", "-L", "c1:/nope", "."]).exits(1);
    broken.complains("Could not find the file /nope in container c1");
}

fn cp_streams_tars() {
    let host = Host::new();
    stays(&host, "c1", &[], "mkdir /d /e; echo a >/d/a; echo f >/f");
    let program = host.command(["cp", "c1:/d", "-"]);
    let names = Cmd::new("sh").args(["-c", "\"$@\" | tar t", "sh"]);
    let line = program.line();
    let listed = host.with_environment(Cmd::new("sh").args(["-c", &format!("{line} | tar t")]));
    drop(names);
    listed.run_in(&host.netns).ok().says("d/\nd/a");
    let tar = place(&host, "in.tar");
    fs::write(place(&host, "one"), "1").unwrap();
    let folder = host.folder().join("files");
    host.tool(
        "tar",
        [
            "-C",
            folder.to_str().unwrap(),
            "-cf",
            tar.to_str().unwrap(),
            "one",
        ],
    )
    .ok();
    let bytes = fs::read(&tar).unwrap();
    host.command(["cp", "-", "c1:/e"])
        .stdin(&bytes)
        .run_in(&host.netns)
        .ok();
    assert_eq!(shell(&host, "c1", "cat /e/one"), "1");
    let to_file = host
        .command(["cp", "-", "c1:/f"])
        .stdin(&bytes)
        .run_in(&host.netns);
    to_file
        .exits(1)
        .complains("destination \"c1:/f\" must be a directory");
    let broken = host
        .command(["cp", "-", "c1:/e"])
        .stdin(&bytes[..700])
        .run_in(&host.netns);
    broken.exits(1);
}

fn cp_works_on_created_and_stopped_containers_with_their_volumes() {
    let host = Host::new();
    let file = place(&host, "file");
    fs::write(&file, "text").unwrap();
    let file = file.to_str().unwrap();
    host.run("create --name c1 -v vol:/vol busybox sh -c 'true'");
    cp(&host, file, "c1:/tmp/a").ok();
    cp(&host, file, "c1:/vol/b").ok();
    let out = place(&host, "out");
    cp(&host, "c1:/vol/b", out.to_str().unwrap()).ok();
    assert_eq!(fs::read_to_string(&out).unwrap(), "text");
    let seen = host.run("run --rm -v vol:/vol busybox cat /vol/b");
    assert_eq!(seen.stdout, "text");
    stays(&host, "c2", &[], "echo x >/made");
    host.run("stop c2");
    cp(&host, "c2:/made", out.to_str().unwrap()).ok();
    assert_eq!(fs::read_to_string(&out).unwrap(), "x\n");
    cp(&host, file, "c2:/later").ok();
    host.run("start c2");
    assert_eq!(shell(&host, "c2", "cat /later"), "text");
    // The files that the engine writes are there as the container sees them.
    cp(&host, "c2:/etc/hostname", out.to_str().unwrap()).ok();
    assert_eq!(
        fs::read_to_string(&out).unwrap(),
        shell(&host, "c2", "hostname")
    );
}

fn cp_refuses_what_cannot_be_meant() {
    let host = Host::new();
    host.run("create --name c1 busybox true");
    for (from, to, text) in [
        (
            "c1:/a",
            "c1:/b",
            "copying between containers is not supported",
        ),
        ("a", "b", "must specify at least one container source"),
        ("", "c1:/", "source can not be empty"),
        ("c1:/a", "", "destination can not be empty"),
        ("c1:", ".", "path cannot be empty"),
        ("nope:/x", ".", "No such container: nope"),
        ("/etc/hostname", "nope:/x", "No such container: nope"),
    ] {
        cp(&host, from, to).exits(1).complains(text);
    }
    host.try_run("cp c1:/a")
        .exits(1)
        .complains("requires 2 arguments");
    host.try_run("cp --bogus c1:/a b").exits(125);
}

fn cp_respects_what_is_read_only() {
    let host = Host::new();
    let file = place(&host, "file");
    fs::write(&file, "text").unwrap();
    let bind = format!("{}:/ro:ro", host.folder().join("files").display());
    stays(&host, "c1", &["-v", &bind], "true");
    let file = file.to_str().unwrap();
    for target in ["c1:/ro", "c1:/ro/new"] {
        cp(&host, file, target)
            .exits(1)
            .complains("mounted volume is marked read-only");
    }
    assert!(!host.folder().join("files/new").exists());
}

fn cp_keeps_links_holes_attributes_and_special_files() {
    let host = Host::new();
    stays(
        &host,
        "c1",
        &[],
        "mkdir -p /s/dir; cd /s; echo 1 >one; ln one two; mkfifo pipe; ln -s /etc/passwd abs; chmod 1777 dir; mknod null c 1 3; dd if=/dev/zero of=big bs=1 count=1 seek=20000000 2>/dev/null",
    );
    let out = place(&host, "out");
    cp(&host, "c1:/s", out.to_str().unwrap()).ok();
    let stat = |name: &str| out.join(name).symlink_metadata().unwrap();
    assert_eq!(stat("one").ino(), stat("two").ino());
    assert!(stat("pipe").file_type().is_fifo());
    assert!(stat("null").file_type().is_char_device());
    assert_eq!(
        fs::read_link(out.join("abs")).unwrap(),
        PathBuf::from("/etc/passwd")
    );
    assert_eq!(stat("dir").mode() & 0o7777, 0o1777);
    assert_eq!(stat("big").len(), 20_000_001);
    assert!(stat("big").blocks() < 100, "holes stay holes");
    let attribute = [
        "-c",
        "import os,sys; os.setxattr(sys.argv[1], 'user.k', b'v')",
        out.to_str().unwrap(),
    ];
    let has_attributes = host.tool("python3", attribute).code() == 0;
    cp(&host, out.to_str().unwrap(), "c1:/back").ok();
    assert_eq!(
        shell(
            &host,
            "c1",
            "cd /back; stat -c '%h' one; stat -c '%F' pipe null; readlink abs; stat -c '%s' big"
        ),
        "2\nfifo\ncharacter special file\n/etc/passwd\n20000001\n"
    );
    if has_attributes {
        let again = place(&host, "again");
        cp(&host, "c1:/back", again.to_str().unwrap()).ok();
        let read = [
            "-c",
            "import os,sys; print(os.getxattr(sys.argv[1], 'user.k').decode())",
            again.to_str().unwrap(),
        ];
        host.tool("python3", read).ok().says("v");
    }
}

/// A container that makes a directory into a link to the host's folder and back, as fast as it can.
fn cp_never_leaves_a_container_that_swaps_its_directories() {
    let host = Host::new();
    let secret = place(&host, "secret");
    fs::create_dir_all(&secret).unwrap();
    fs::write(secret.join("file"), "the host's").unwrap();
    let target = secret.display().to_string();
    // The same path exists inside, so that whoever follows the link inside finds something.
    let script = format!(
        "mkdir -p {target} /race/dir; echo inside >{target}/file; echo inside >/race/dir/file; ln -s {target} /race/link; \
         (while :; do mv /race/dir /race/away; mv /race/link /race/dir; mv /race/dir /race/link; mv /race/away /race/dir; done) &"
    );
    stays(&host, "c1", &[], &script);
    let put = place(&host, "put");
    fs::write(&put, "put").unwrap();
    let out = place(&host, "out");
    let (mut read, mut written) = (0, 0);
    for _ in 0..60 {
        let _ = fs::remove_file(&out);
        if cp(&host, "c1:/race/dir/file", out.to_str().unwrap()).code() == 0 {
            assert_ne!(fs::read_to_string(&out).unwrap(), "the host's");
            read += 1;
        }
        written += i32::from(cp(&host, put.to_str().unwrap(), "c1:/race/dir/put").code() == 0);
        assert!(
            !secret.join("put").exists(),
            "a file was written to the host"
        );
    }
    assert!(
        read > 0 && written > 0,
        "nothing was copied: {read} {written}"
    );
    assert_eq!(
        fs::read_to_string(secret.join("file")).unwrap(),
        "the host's"
    );
}

fn cp_does_not_follow_a_hostile_archive() {
    let host = Host::new();
    let secret = place(&host, "secret");
    fs::create_dir_all(&secret).unwrap();
    stays(&host, "c1", &[], "mkdir /e");
    let tar = place(&host, "evil.tar");
    let make = format!(
        "import tarfile,io\nt=tarfile.open({:?},'w')\nl=tarfile.TarInfo('l'); l.type=tarfile.SYMTYPE; l.linkname={:?}; t.addfile(l)\n\
         f=tarfile.TarInfo('l/planted'); f.size=1; t.addfile(f,io.BytesIO(b'x'))\nt.close()",
        tar.display().to_string(),
        secret.display().to_string(),
    );
    host.tool("python3", ["-c", &make]).ok();
    let bytes = fs::read(&tar).unwrap();
    // Followed inside of the container.
    host.command(["cp", "-", "c1:/e"])
        .stdin(&bytes)
        .run_in(&host.netns)
        .ok();
    assert!(!secret.join("planted").exists());
    shell(
        &host,
        "c1",
        &format!("test -f {}/planted", secret.display()),
    );
    let climbs = format!(
        "import tarfile,io\nt=tarfile.open({:?},'w')\nf=tarfile.TarInfo('../../../planted'); f.size=1; t.addfile(f,io.BytesIO(b'x'))\nt.close()",
        tar.display().to_string(),
    );
    host.tool("python3", ["-c", &climbs]).ok();
    let bytes = fs::read(&tar).unwrap();
    host.command(["cp", "-", "c1:/e"])
        .stdin(&bytes)
        .run_in(&host.netns)
        .exits(1)
        .complains("..");
    shell(&host, "c1", "test ! -e /planted");
}

fn cp_copes_with_a_file_that_is_being_written() {
    let host = Host::new();
    stays(
        &host,
        "c1",
        &[],
        "mkdir /w; (while :; do echo line >>/w/grows; echo x >/w/short; dd if=/dev/zero of=/w/short bs=1k count=64 2>/dev/null; rm -f /w/gone; echo y >/w/gone; done) &",
    );
    for round in 0..10 {
        let out = place(&host, &format!("out{round}"));
        cp(&host, "c1:/w", out.to_str().unwrap()).ok();
        let text = fs::read_to_string(out.join("grows")).unwrap();
        assert!(text.lines().all(|line| "line".starts_with(line)), "{text}");
    }
}

fn diff_tells_added_changed_and_deleted() {
    let host = Host::new();
    host.run("create --name fresh busybox true");
    host.run("diff fresh").says("");
    stays(
        &host,
        "c1",
        &[],
        "mkdir /etc/new; echo 1 >/etc/new/f; echo x >>/etc/passwd; rm /etc/group; rm -r /www; mkdir /www; echo q >/www/q",
    );
    let lines = host.run("diff c1").stdout;
    let has = |line: &str| lines.lines().any(|l| l == line);
    for line in [
        "C /etc",
        "C /etc/passwd",
        "A /etc/new",
        "A /etc/new/f",
        "D /etc/group",
        "C /www",
        "A /www/q",
        "A /tmp/ready",
    ] {
        assert!(has(line), "{line} in\n{lines}");
    }
    for path in [
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/proc",
        "/sys",
        "/dev",
    ] {
        assert!(
            !lines.lines().any(|l| l.ends_with(&format!(" {path}"))),
            "{path} in\n{lines}"
        );
    }
    host.run("stop c1");
    assert_eq!(host.run("diff c1").stdout, lines);
    host.try_run("diff nope")
        .exits(1)
        .complains("No such container: nope");
    host.try_run("diff")
        .exits(1)
        .complains("requires 1 argument");
}

fn export_is_the_flat_tree() {
    let host = Host::new();
    stays(
        &host,
        "c1",
        &["-v", "vol:/vol"],
        "echo v >/vol/f; echo x >/made; rm /etc/group",
    );
    for (at, option) in ["-o", "--output"].into_iter().enumerate() {
        let tar = place(&host, &format!("out{at}.tar"));
        let tar = tar.to_str().unwrap();
        host.coracle(["export", option, tar, "c1"]).ok();
        let names = host.tool("tar", ["-tf", tar]).ok().stdout;
        let has = |name: &str| names.lines().any(|line| line == name);
        assert!(has("made") && has("bin/busybox") && has("vol/"), "{names}");
        assert!(!has("etc/group") && !has("vol/f"), "{names}");
    }
    let whole = host.folder().join("files/out0.tar");
    host.coracle(["import", whole.to_str().unwrap(), "flat"])
        .ok();
    assert_eq!(host.run("run --rm flat cat /made").stdout, "x\n");
    let piped = host.with_environment(Cmd::new("sh").args([
        "-c",
        &format!("{} | tar t", host.command(["export", "c1"]).line()),
    ]));
    assert!(piped.run_in(&host.netns).ok().stdout.contains("made"));
    let line = host.command(["export", "c1"]).line();
    let terminal = host.with_environment(Cmd::new("script").args(["-qec", &line, "/dev/null"]));
    let refused = terminal.run_in(&host.netns);
    assert!(
        refused.code() == 1
            && refused
                .stdout
                .contains("cowardly refusing to save to a terminal"),
        "{refused}"
    );
    host.coracle(["export", "-o", "/nope/x", "c1"])
        .exits(1)
        .complains("invalid output path: directory \"/nope\" does not exist");
    host.try_run("export nope")
        .exits(1)
        .complains("No such container: nope");
}

fn commit_makes_an_image_of_the_changes() {
    let host = Host::new();
    stays(
        &host,
        "c1",
        &["-e", "OLD=1", "-l", "k=v"],
        "mkdir /made; echo x >/made/f; ln /made/f /made/g; rm /etc/group; rm -r /www; mkdir /www",
    );
    let id = host
        .coracle([
            "commit",
            "-a",
            "me",
            "-m",
            "why",
            "-c",
            "CMD [\"cat\", \"/made/f\"]",
            "-c",
            "ENV NEW=2",
            "-c",
            "EXPOSE 80",
            "-c",
            "LABEL x=y",
            "-c",
            "USER 1000",
            "-c",
            "VOLUME /data",
            "-c",
            "WORKDIR /made",
            "-c",
            "ONBUILD RUN z",
            "-c",
            "HEALTHCHECK --interval=5s CMD true",
            "-c",
            "STOPSIGNAL SIGINT",
            "c1",
            "made:1",
        ])
        .ok();
    let id = id.text().to_owned();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    let image = host.run("image inspect made:1").json()[0].clone();
    assert_eq!(image["Id"], id.as_str());
    assert_eq!(
        (image["Author"].as_str(), image["Comment"].as_str()),
        (Some("me"), Some("why"))
    );
    assert_eq!(
        image["Config"]["Cmd"],
        serde_json::json!(["cat", "/made/f"])
    );
    assert_eq!(image["Config"]["User"], "1000");
    assert_eq!(image["Config"]["WorkingDir"], "/made");
    assert_eq!(
        image["Config"]["Labels"],
        serde_json::json!({"k": "v", "x": "y"})
    );
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    let env = image["Config"]["Env"].to_string();
    assert!(env.contains("OLD=1") && env.contains("NEW=2"), "{env}");
    assert_eq!(host.run("run --rm made:1").stdout, "x\n");
    let left = host.coracle([
        "run",
        "--rm",
        "made:1",
        "sh",
        "-c",
        "ls /etc/group; ls /www; stat -c %h /made/f",
    ]);
    assert_eq!(left.stdout, "2\n");
    // It goes on after the pause, and without one too.
    shell(&host, "c1", "true");
    for words in [
        &[
            "--author=a",
            "--message=m",
            "--change=ENV A=1",
            "--pause=false",
        ][..],
        &["-p=false"],
        &["-p"],
        &["--pause"],
    ] {
        host.coracle(["commit"].iter().chain(words).chain(&["c1"]))
            .ok();
    }
    shell(&host, "c1", "true");
    host.run("create --name never busybox true");
    host.run("commit never empty");
    host.run("run --rm empty true");
}

fn commit_refuses_bad_changes_and_names() {
    let host = Host::new();
    host.run("create --name c1 busybox true");
    let before = host.run("images -q").stdout;
    host.coracle(["commit", "-c", "RUN x", "c1"])
        .exits(1)
        .complains("run is not a valid change command");
    host.coracle(["commit", "--change", "EXPOSE x", "c1"])
        .exits(1)
        .complains("Invalid containerPort: x");
    host.run("create --name c2 busybox true");
    host.try_run("commit c1 UP:x")
        .exits(1)
        .complains("repository name must be lowercase");
    host.try_run("commit nope")
        .exits(1)
        .complains("No such container: nope");
    host.try_run("commit")
        .exits(1)
        .complains("requires at least 1");
    assert_eq!(host.run("images -q").stdout, before);
}
