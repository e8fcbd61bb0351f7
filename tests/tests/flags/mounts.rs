//! What is mounted in a container: binds, memory, the root itself.

use std::fs;
use std::path::{Path, PathBuf};

use harness::{Cmd, Host, Output, eventually};

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(a_bind_by_mount_is_the_hosts_directory, "run --mount",),
    cell!(a_bind_by_mount_needs_its_source, "run --mount"),
    cell!(a_volume_and_memory_by_mount, "run --mount",),
    cell!(mount_specs_are_refused_in_dockers_words, "run --mount"),
    cell!(
        binds_that_are_not_recursive_leave_out_what_is_below,
        "run --mount",
    ),
    cell!(tmpfs_is_memory_with_options, "run --tmpfs"),
    cell!(tmpfs_options_are_refused_in_dockers_words, "run --tmpfs"),
    cell!(modes_of_v_are_checked, "run --volume", "run -v"),
    cell!(
        mounts_propagate_both_ways_when_shared_and_one_way_when_slave,
        "run --mount",
        "run -v"
    ),
    cell!(propagation_needs_a_mount_that_has_it, "run --mount",),
    cell!(
        a_read_only_root_leaves_memory_and_volumes_writable,
        "run --read-only"
    ),
    cell!(a_read_only_bind_is_so_with_all_below, "run -v"),
    cell!(shm_has_the_size_asked_for, "run --shm-size"),
    cell!(
        targets_behind_links_stay_inside,
        "run -v",
        "run --mount",
        "run --tmpfs"
    ),
    cell!(inspect_tells_mounts_as_docker_does, "inspect"),
];

/// Runs a shell line in a container with these options.
fn sh(host: &Host, options: &[&str], line: &str) -> Output {
    let words = [&["run", "--rm"], options, &["busybox", "sh", "-c", line]].concat();
    host.coracle(words)
}

fn folder(host: &Host, name: &str) -> PathBuf {
    let folder = host.folder().join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A tmpfs on the machine, below the host's folder; unmounted in the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path, propagation: &str) -> Tmpfs {
        fs::create_dir_all(at).unwrap();
        Cmd::new("mount")
            .args(["-t", "tmpfs", "tmpfs"])
            .arg(at)
            .run()
            .ok();
        let tmpfs = Tmpfs(at.to_owned());
        let flag = format!("--make-{propagation}");
        Cmd::new("mount").arg(flag).arg(at).run().ok();
        tmpfs
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn a_bind_by_mount_is_the_hosts_directory() {
    let host = Host::new();
    let source = folder(&host, "data");
    fs::write(source.join("hello"), "from the host\n").unwrap();
    let spec = format!("type=bind,src={},dst=/x", source.display());
    sh(
        &host,
        &["--mount", &spec],
        "cat /x/hello; echo back >/x/answer",
    )
    .ok()
    .says("from the host");
    assert_eq!(fs::read_to_string(source.join("answer")).unwrap(), "back\n");
    for word in ["readonly", "ro=true"] {
        sh(
            &host,
            &["--mount", &format!("{spec},{word}")],
            "echo no >/x/answer",
        )
        .exits(1)
        .complains("Read-only file system");
    }
    // A single file, and a comma in a path.
    let file = folder(&host, "a,b").join("file");
    fs::write(&file, "one file\n").unwrap();
    let quoted = format!("type=bind,\"src={}\",dst=/etc/one", file.display());
    sh(&host, &["--mount", &quoted], "cat /etc/one")
        .ok()
        .says("one file");
}

fn a_bind_by_mount_needs_its_source() {
    let host = Host::new();
    let missing = host.folder().join("missing");
    let spec = format!("type=bind,src={},dst=/x", missing.display());
    sh(&host, &["--mount", &spec], "true")
        .exits(125)
        .complains(&format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            missing.display()
        ));
    assert!(!missing.exists() && host.ids().is_empty());
    // It may go after the container was created; `-v` would make it again.
    fs::create_dir(&missing).unwrap();
    host.coracle([
        "create", "--name", "c1", "--mount", &spec, "busybox", "true",
    ])
    .ok();
    fs::remove_dir(&missing).unwrap();
    host.try_run("start c1")
        .exits(1)
        .complains("bind source path does not exist");
    let by_v = format!("{}:/x", missing.display());
    sh(&host, &["-v", &by_v], "true").ok();
    assert!(missing.is_dir());
}

fn a_volume_and_memory_by_mount() {
    let host = Host::new();
    let mount = [
        "--mount",
        "source=data,target=/x,volume-label=tier=back,volume-driver=local",
    ];
    sh(&host, &mount, "echo kept >/x/file").ok();
    sh(
        &host,
        &["--mount", "type=volume,src=data,dst=/y,ro"],
        "cat /y/file; touch /y/z",
    )
    .complains("Read-only file system")
    .says("kept");
    let volume = host.run("volume inspect data").json();
    assert_eq!(volume[0]["Labels"]["tier"], "back");
    // As the image has it, unless told not to.
    sh(
        &host,
        &["--mount", "src=full,dst=/www"],
        "cat /www/index.html",
    )
    .ok();
    sh(
        &host,
        &["--mount", "src=empty,dst=/www,volume-nocopy"],
        "ls /www",
    )
    .ok()
    .says("");
    sh(
        &host,
        &["--mount", "type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=700"],
        "grep ' /x ' /proc/mounts; stat -c %a /x",
    )
    .ok()
    .says("tmpfs /x tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k,mode=700 0 0\n700");
    // Nameless, and gone with the container.
    sh(&host, &["--mount", "type=volume,dst=/x"], "touch /x/y").ok();
    let mut names: Vec<String> = host
        .run("volume ls -q")
        .stdout
        .lines()
        .map(str::to_owned)
        .collect();
    names.sort();
    assert_eq!(names, ["data", "empty", "full"]);
    // A directory of the host by the driver's options.
    let source = folder(&host, "device");
    let options = format!(
        "src=dev,dst=/x,volume-opt=type=none,volume-opt=o=bind,volume-opt=device={}",
        source.display()
    );
    sh(&host, &["--mount", &options], "touch /x/made").ok();
    assert!(source.join("made").exists());
    fs::remove_dir_all(&source).unwrap();
    sh(&host, &["-v", "dev:/x"], "true")
        .exits(125)
        .complains("failed to mount local volume")
        .complains("no such file or directory");
}

fn mount_specs_are_refused_in_dockers_words() {
    let host = Host::new();
    for (spec, text) in [
        ("", "invalid argument \"\" for \"--mount\" flag: EOF"),
        (
            "type=bind",
            "invalid argument \"type=bind\" for \"--mount\" flag: target is required",
        ),
        ("dst=/x,bogus=1", "unexpected key 'bogus' in 'bogus=1'"),
        (
            "dst=/x,bogus",
            "invalid field 'bogus' must be a key=value pair",
        ),
        (
            "type=tmpfs,dst=/x,tmpfs-size=x",
            "invalid value for tmpfs-size: x",
        ),
        (
            "type=bind,src=/tmp,dst=/x,volume-nocopy",
            "cannot mix 'volume-*' options with mount type 'bind'",
        ),
        (
            "type=bogus,dst=/x",
            "invalid mount config for type \"bogus\": mount type unknown",
        ),
        (
            "type=bind,dst=/x",
            "invalid mount config for type \"bind\": field Source must not be empty",
        ),
        (
            "type=bind,src=rel,dst=/x",
            "invalid mount path: 'rel' mount path must be absolute",
        ),
        (
            "type=bind,src=/tmp,dst=x",
            "invalid mount path: 'x' mount path must be absolute",
        ),
        (
            "type=bind,src=/tmp,dst=/",
            "invalid specification: destination can't be '/'",
        ),
        (
            "type=bind,src=/tmp,dst=/a/..",
            "invalid specification: destination can't be '/'",
        ),
        (
            "type=bind,src=/tmp,dst=/x,bind-propagation=foo",
            "invalid propagation mode: foo",
        ),
        (
            "type=tmpfs,dst=/x,src=/tmp",
            "field Source must not be specified",
        ),
        (
            "dst=/x,ro",
            "must not set ReadOnly mode when using anonymous volumes",
        ),
        (
            "src=a/b,dst=/x",
            "\"a/b\" includes invalid characters for a local volume name",
        ),
        (
            "src=vo,dst=/x,volume-opt=foo=bar",
            "create vo: invalid option: \"foo\"",
        ),
        (
            "src=vo,dst=/x,volume-driver=nope",
            "error looking up volume plugin nope: plugin \"nope\" not found",
        ),
    ] {
        sh(&host, &["--mount", spec], "true")
            .exits(125)
            .complains(text);
    }
    for options in [
        ["-v", "/tmp:/x", "-v", "/etc:/x"],
        ["-v", "/tmp:/x", "--tmpfs", "/x"],
        ["-v", "/tmp:/x", "--mount", "type=bind,src=/etc,dst=/x/"],
    ] {
        sh(&host, &options, "true")
            .exits(125)
            .complains("Duplicate mount point: /x");
    }
    assert!(host.ids().is_empty());
    assert_eq!(host.run("volume ls -q").stdout, "");
}

fn binds_that_are_not_recursive_leave_out_what_is_below() {
    let host = Host::new();
    let source = folder(&host, "source");
    let below = Tmpfs::mount(&source.join("below"), "private");
    fs::write(below.0.join("file"), "").unwrap();
    let spec = format!("type=bind,src={},dst=/x", source.display());
    sh(&host, &["--mount", &spec], "ls /x/below")
        .ok()
        .says("file");
    sh(
        &host,
        &["--mount", &format!("{spec},bind-nonrecursive")],
        "ls /x/below",
    )
    .ok()
    .says("");
}

fn tmpfs_is_memory_with_options() {
    let host = Host::new();
    for (target, expected) in [
        ("/x", "rw,nosuid,nodev,noexec,relatime"),
        ("/x:size=1m", "rw,nosuid,nodev,noexec,relatime,size=1024k"),
        ("/x:ro", "ro,nosuid,nodev,noexec,relatime"),
        ("/x:exec,mode=700", "rw,nosuid,nodev,relatime,mode=700"),
    ] {
        sh(&host, &["--tmpfs", target], "grep ' /x ' /proc/mounts")
            .ok()
            .says(&format!("tmpfs /x tmpfs {expected} 0 0"));
    }
    // What is there keeps its mode, and is hidden; a new directory is for everybody.
    sh(
        &host,
        &["--tmpfs", "/www", "--tmpfs", "/new"],
        "stat -c %a /www /new; ls /www",
    )
    .ok()
    .says("755\n1777");
    sh(
        &host,
        &["--tmpfs", "/x:size=1m"],
        "dd if=/dev/zero of=/x/y bs=1k count=2000",
    )
    .exits(1)
    .complains("No space left on device");
}

fn tmpfs_options_are_refused_in_dockers_words() {
    let host = Host::new();
    for (target, text) in [
        ("x", "invalid mount path: 'x' mount path must be absolute"),
        ("/", "invalid specification: destination can't be '/'"),
        ("/x:foo", "invalid tmpfs option [\"foo\"]"),
        ("/x:foo=bar", "invalid tmpfs option [\"foo\" \"bar\"]"),
        ("/x:size=x", "invalid tmpfs option [\"size\" \"x\"]"),
        ("/x:mode=9", "invalid tmpfs option [\"mode\" \"9\"]"),
    ] {
        sh(&host, &["--tmpfs", target], "true")
            .exits(125)
            .complains(text);
    }
    assert!(host.ids().is_empty());
}

fn modes_of_v_are_checked() {
    let host = Host::new();
    for (spec, text) in [
        ("/tmp:/x:z,Z", "invalid mode: z,Z"),
        ("/tmp:/x:ro,ro", "invalid mode: ro,ro"),
        ("/tmp:/x:shared,slave", "invalid mode: shared,slave"),
        ("vv:/x:shared", "field BindOptions must not be specified"),
        (
            "/tmp:/x:nocopy",
            "field VolumeOptions must not be specified",
        ),
        ("/x:ro", "invalid volume specification: '/x:ro'"),
        ("/tmp:/", "invalid specification: destination can't be '/'"),
    ] {
        sh(&host, &["-v", spec], "true").exits(125).complains(text);
    }
    for spec in [
        "vv:/x:nocopy",
        "vv:/x:z",
        "vv:/x:ro,cached",
        "/tmp:/x:private",
        "/tmp:/x:ro,rprivate,Z",
    ] {
        sh(&host, &["-v", spec], "true").ok();
    }
    sh(&host, &["-v", "v1:/www:nocopy"], "ls /www")
        .ok()
        .says("");
    sh(&host, &["-v", "v2:/www"], "ls /www")
        .ok()
        .says("index.html");
}

fn mounts_propagate_both_ways_when_shared_and_one_way_when_slave() {
    let host = Host::new();
    let shared = Tmpfs::mount(&host.folder().join("shared"), "shared");
    // In the container there is a working directory in the bind, which comes last of all.
    for (name, there, back) in [
        ("rshared", true, true),
        ("rslave", true, false),
        ("rprivate", false, false),
    ] {
        let outer = shared.0.join(name);
        let inner = shared.0.join(format!("{name}-inner"));
        fs::create_dir(&outer).unwrap();
        fs::create_dir(&inner).unwrap();
        host.coracle([
            "run",
            "-d",
            "--name",
            name,
            "--privileged",
            "--init",
            "-w",
            &format!("/x/{name}"),
            "--mount",
            &format!(
                "type=bind,src={},dst=/x,bind-propagation={name}",
                shared.0.display()
            ),
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
        host.run(&format!("exec {name} ls"));
        let on_host = Tmpfs::mount(&outer, "private");
        fs::write(on_host.0.join("new"), "").unwrap();
        let seen = host
            .run(&format!("exec {name} ls /x/{name}"))
            .stdout
            .contains("new");
        assert_eq!(seen, there, "{name}: from the host to the container");
        host.run(&format!(
            "exec --privileged {name} mount -t tmpfs made-inside /x/{name}-inner"
        ));
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = table
            .lines()
            .find(|line| line.contains(&*inner.to_string_lossy()));
        assert_eq!(
            line.is_some(),
            back,
            "{name}: from the container to the host"
        );
        host.run(&format!("exec --privileged {name} umount /x/{name}-inner"));
        drop(on_host);
        let inspect = host.inspect(name);
        assert_eq!(inspect["Mounts"][0]["Propagation"], name);
        host.run(&format!("rm -f {name}"));
    }
    // Read-only, as a tool that watches the host wants it.
    sh(
        &host,
        &["-v", &format!("{}:/x:ro,rslave", shared.0.display())],
        "touch /x/y",
    )
    .exits(1)
    .complains("Read-only file system");
    assert_eq!(fs::read_dir(&shared.0).unwrap().count(), 6);
}

fn propagation_needs_a_mount_that_has_it() {
    let host = Host::new();
    let private = Tmpfs::mount(&host.folder().join("private"), "private");
    let at = private.0.display();
    sh(&host, &["-v", &format!("{at}:/x:rshared")], "true")
        .exits(125)
        .complains(&format!(
            "path {at} is mounted on {at} but it is not a shared mount"
        ));
    sh(&host, &["-v", &format!("{at}:/x:slave")], "true")
        .exits(125)
        .complains(&format!(
            "path {at} is mounted on {at} but it is not a shared or slave mount"
        ));
    let below = format!("{at}:/x:rslave");
    sh(&host, &["-v", &below, "-v", "/tmp:/x/y"], "true")
        .exits(125)
        .complains("cannot mount on /x/y: it is below /x");
    assert!(host.ids().is_empty());
}

fn a_read_only_root_leaves_memory_and_volumes_writable() {
    let host = Host::new();
    let options = [
        "--read-only",
        "--tmpfs",
        "/run",
        "-v",
        "data:/data",
        "-v",
        "/anonymous",
    ];
    sh(
        &host,
        &options,
        "touch /run/a /data/a /anonymous/a /dev/shm/a && grep -c . /etc/hosts >/dev/null && hostname >/dev/null && touch /etc/x",
    )
    .exits(1)
    .complains("/etc/x: Read-only file system");
    for file in ["/new", "/etc/hosts", "/bin/busybox", "/sys/x"] {
        sh(&host, &["--read-only"], &format!("echo x >{file}")).complains("Read-only file system");
    }
    host.run("run -d --name c1 --read-only busybox sleep 1000");
    assert_eq!(host.inspect("c1")["HostConfig"]["ReadonlyRootfs"], true);
    host.try_run("exec c1 touch /x")
        .exits(1)
        .complains("Read-only file system");
    host.run("rm -f c1");
}

fn a_read_only_bind_is_so_with_all_below() {
    let host = Host::new();
    let source = folder(&host, "source");
    let below = Tmpfs::mount(&source.join("below"), "private");
    let spec = format!("{}:/x:ro", source.display());
    for file in ["/x/file", "/x/below/file"] {
        sh(&host, &["-v", &spec], &format!("touch {file}"))
            .exits(1)
            .complains("Read-only file system");
    }
    assert_eq!(fs::read_dir(&below.0).unwrap().count(), 0);
}

fn shm_has_the_size_asked_for() {
    let host = Host::new();
    let size = "df -k /dev/shm | tail -n 1 | awk '{print $2}'";
    for (asked, kibibytes) in [
        ("1g", "1048576"),
        ("1.5m", "1536"),
        ("4096", "4"),
        ("0", "65536"),
    ] {
        sh(&host, &["--shm-size", asked], size).ok().says(kibibytes);
    }
    sh(&host, &[], size).ok().says("65536");
    for asked in ["x", "-1"] {
        sh(&host, &["--shm-size", asked], "true")
            .exits(125)
            .complains(&format!(
                "invalid argument \"{asked}\" for \"--shm-size\" flag: invalid size: '{asked}'"
            ));
    }
}

/// The image's links lead to directories of the host that would be there.
fn targets_behind_links_stay_inside() {
    let host = Host::new();
    let outside = folder(&host, "outside");
    let shared = Tmpfs::mount(&host.folder().join("shared"), "shared");
    let source = folder(&host, "source");
    fs::write(source.join("mine"), "").unwrap();
    let image = host.folder().join("image");
    let script = "set -e; mkdir $1 && cd $1 && tar xf $2; ln -s $3 link; ln -s ../../../../../../..$3 climbing; rm -rf etc; ln -s $3 etc";
    Cmd::new("sh")
        .args(["-c", script, "sh"])
        .arg(&image)
        .arg(harness::images::busybox_tar())
        .arg(&outside)
        .run()
        .ok();
    let tar = host.folder().join("image.tar");
    harness::images::pack(&image, &tar);
    host.coracle(["import", &tar.to_string_lossy(), "linked"])
        .ok();
    let bind = format!("{}:/link/a", source.display());
    let mount = format!("type=bind,src={},dst=/climbing/b", source.display());
    let late = format!("{}:/climbing/late:rslave", shared.0.display());
    host.coracle([
        "run",
        "--rm",
        "--init",
        "-v",
        &bind,
        "--mount",
        &mount,
        "-v",
        &late,
        "-v",
        "data:/etc/c",
        "--tmpfs",
        "/link/d",
        "-w",
        "/link/e",
        "linked",
        "sh",
        "-c",
        "ls /link/a /climbing/b; touch /link/d/x /etc/c/x /link/late/x",
    ])
    .ok();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(shared.0.join("x").exists());
}

fn inspect_tells_mounts_as_docker_does() {
    let host = Host::new();
    let source = folder(&host, "source").display().to_string();
    host.coracle([
        "create",
        "--name",
        "c1",
        "-v",
        "/anon",
        "-v",
        "vv:/named",
        "-v",
        &format!("{source}:/b:ro,rprivate"),
        "--mount",
        "type=volume,dst=/mv",
        "--mount",
        &format!("type=bind,src={source},dst=/mb,readonly"),
        "--mount",
        "type=tmpfs,dst=/mt,tmpfs-size=1m,tmpfs-mode=0700",
        "--mount",
        "type=volume,src=nv,dst=/nv,volume-nocopy,volume-label=x=y,volume-driver=local",
        "--tmpfs",
        "/tt:size=1m",
        "--tmpfs",
        "/t2",
        "busybox",
        "true",
    ])
    .ok();
    let inspect = host.inspect("c1");
    let mut mounts: Vec<String> = inspect["Mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| {
            let word = |key: &str| m[key].as_str().unwrap_or("-").to_owned();
            let name = word("Name");
            let name = if name.len() == 64 {
                "ID".to_owned()
            } else {
                name
            };
            let rest = ["Type", "Driver", "Mode", "Propagation"].map(word);
            format!(
                "{} {name} {} {}",
                word("Destination"),
                rest.join(" "),
                m["RW"]
            )
        })
        .collect();
    mounts.sort();
    assert_eq!(
        mounts,
        [
            "/anon ID volume local   true",
            "/b - bind - ro,rprivate rprivate false",
            "/mb - bind -  rprivate false",
            "/mt - tmpfs -   true",
            "/mv ID volume local z  true",
            "/named vv volume local z  true",
            "/nv nv volume local z  true",
        ]
    );
    let config = &inspect["HostConfig"];
    assert_eq!(
        config["Binds"],
        serde_json::json!(["vv:/named", format!("{source}:/b:ro,rprivate")])
    );
    assert_eq!(
        config["Tmpfs"],
        serde_json::json!({"/tt": "size=1m", "/t2": ""})
    );
    assert_eq!(
        config["Mounts"],
        serde_json::json!([
            {"Type": "volume", "Target": "/mv"},
            {"Type": "bind", "Source": source, "Target": "/mb", "ReadOnly": true},
            {"Type": "tmpfs", "Target": "/mt", "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 448}},
            {"Type": "volume", "Source": "nv", "Target": "/nv", "VolumeOptions": {
                "NoCopy": true, "Labels": {"x": "y"}, "DriverConfig": {"Name": "local"}}},
        ])
    );
    assert_eq!(
        inspect["Config"]["Volumes"],
        serde_json::json!({"/anon": {}})
    );
    // Everything is there when it runs.
    host.run("start c1");
    eventually("it has ended", || {
        let state = host.inspect("c1")["State"].clone();
        let ended = state["Status"] == "exited" && state["ExitCode"] == 0;
        ended.then_some(()).ok_or(state)
    });
}
