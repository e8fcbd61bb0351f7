//! `volume` and its commands, and what becomes of volumes with their containers.

use std::fs;

use harness::{Cmd, Host, Output};

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(
        volumes_are_created_listed_inspected_and_removed,
        "volume create",
        "volume ls",
        "volume ls -q",
        "volume ls --quiet",
        "volume ls --format",
        "volume inspect",
        "volume inspect -f",
        "volume inspect --format",
        "volume rm",
        "volume create --label",
        "inspect --type"
    ),
    cell!(
        volume_commands_refuse_in_dockers_words,
        "volume create -d",
        "volume create --driver",
        "volume create -o",
        "volume create --opt",
        "volume rm -f",
        "volume rm --force"
    ),
    cell!(volumes_are_filtered, "volume ls -f", "volume ls --filter"),
    cell!(
        prune_asks_and_takes_the_nameless,
        "volume prune",
        "volume prune -f",
        "volume prune --force",
        "volume prune -a",
        "volume prune --all",
        "volume prune --filter"
    ),
    cell!(a_volume_in_use_stays, "volume rm"),
    cell!(
        a_volume_may_be_a_directory_of_the_host,
        "volume create -o",
        "volume create --opt"
    ),
    cell!(
        an_empty_volume_gets_what_the_image_has,
        "run --volume",
        "run -v"
    ),
    cell!(
        a_nameless_volume_goes_with_the_last_container,
        "run --volume",
        "rm --volumes",
        "run --rm"
    ),
    cell!(
        volumes_from_brings_the_mounts_of_another,
        "run --volumes-from"
    ),
    cell!(the_volume_driver_is_local, "run --volume-driver"),
    cell!(what_a_killed_creation_has_left_is_swept, "volume create"),
];

fn sh(host: &Host, options: &[&str], line: &str) -> Output {
    let words = [&["run", "--rm"], options, &["busybox", "sh", "-c", line]].concat();
    host.coracle(words)
}

fn names(host: &Host) -> Vec<String> {
    host.run("volume ls -q")
        .stdout
        .lines()
        .map(str::to_owned)
        .collect()
}

fn volumes_are_created_listed_inspected_and_removed() {
    let host = Host::new();
    host.run("volume create v1").says("v1");
    host.run("volume create --label a=b --label c v2")
        .says("v2");
    // Again, it is the same one.
    sh(&host, &["-v", "v1:/x"], "echo kept >/x/file").ok();
    host.run("volume create v1 --label z=y").says("v1");
    sh(&host, &["-v", "v1:/x"], "cat /x/file").ok().says("kept");
    let nameless = host.run("volume create").text().to_owned();
    assert_eq!(nameless.len(), 64);
    host.run(&format!("volume rm {nameless}")).says(&nameless);
    host.run("volume ls")
        .says("DRIVER    VOLUME NAME\nlocal     v1\nlocal     v2");
    host.coracle([
        "volume",
        "ls",
        "--format",
        "{{.Name}} {{.Driver}} {{.Scope}} {{.Labels}} {{.Label \"a\"}}",
    ])
    .ok()
    .says("v1 local local  \nv2 local local a=b,c= b");
    let inspect = host.run("volume inspect v1 v2").json();
    assert_eq!(inspect[0]["Labels"], serde_json::Value::Null);
    assert_eq!(inspect[0]["Options"], serde_json::Value::Null);
    assert_eq!(inspect[1]["Labels"], serde_json::json!({"a": "b", "c": ""}));
    let path = inspect[0]["Mountpoint"].as_str().unwrap();
    assert_eq!(
        fs::read_to_string(format!("{path}/file")).unwrap(),
        "kept\n"
    );
    for flag in ["-f", "--format"] {
        host.coracle(["volume", "inspect", flag, "{{.Name}}/{{.Driver}}", "v2"])
            .ok()
            .says("v2/local");
    }
    assert_eq!(
        host.run("inspect --type volume v1").json(),
        host.run("inspect v1").json()
    );
    host.run("volume rm v1 v2").says("v1\nv2");
    assert!(names(&host).is_empty() && !fs::exists(path).unwrap());
}

fn volume_commands_refuse_in_dockers_words() {
    let host = Host::new();
    for (line, code, text) in [
        (
            "volume create x",
            1,
            "create x: volume name is too short, names should be at least two alphanumeric characters",
        ),
        (
            "volume create a/b",
            1,
            "create a/b: \"a/b\" includes invalid characters for a local volume name",
        ),
        (
            "volume create -d nope vq",
            1,
            "create vq: error looking up volume plugin nope: plugin \"nope\" not found",
        ),
        (
            "volume create --driver nope vq",
            1,
            "plugin \"nope\" not found",
        ),
        (
            "volume create -o foo=bar vf",
            1,
            "create vf: invalid option: \"foo\"",
        ),
        (
            "volume create --opt type=none vf",
            1,
            "create vf: missing required option: \"device\"",
        ),
        (
            "volume create -o type=tmpfs -o device=tmpfs vf",
            1,
            "not supported",
        ),
        (
            "volume create --label =x vl",
            125,
            "invalid label '=x': empty name",
        ),
        (
            "volume create --name v1 v2",
            1,
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
        ),
        ("volume create v1 v2", 1, ""),
        ("volume inspect nope", 1, "get nope: no such volume"),
        ("volume rm nope", 1, "get nope: no such volume"),
        ("volume rm", 1, "requires at least 1 argument"),
        ("volume ls -f foo=x", 1, "Invalid filter 'foo'"),
        ("volume ls -f dangling=x", 1, "Invalid filter 'dangling="),
        ("volume prune -f --filter foo=x", 1, "Invalid filter 'foo'"),
    ] {
        host.try_run(line).exits(code).complains(text);
    }
    host.try_run("volume inspect nope").exits(1).says("[]");
    host.run("volume rm -f nope").says("nope");
    host.run("volume rm --force nope").says("nope");
    host.run("volume create --name v1").says("v1");
    host.try_run("volume rm v1 nope").exits(1).says("v1");
    assert!(names(&host).is_empty());
}

fn volumes_are_filtered() {
    let host = Host::new();
    host.run("volume create --label a=b data-1");
    host.run("volume create --label a=c data-2");
    host.run("volume create other");
    host.run("create -v other:/x busybox true");
    for (filter, expected) in [
        ("name=data", "data-1\ndata-2"),
        ("name=^other$", "other"),
        ("label=a", "data-1\ndata-2"),
        ("label=a=b", "data-1"),
        ("driver=local", "data-1\ndata-2\nother"),
        ("driver=nfs", ""),
        ("dangling=true", "data-1\ndata-2"),
        ("dangling=false", "other"),
    ] {
        host.run(&format!("volume ls -q --filter {filter}"))
            .says(expected);
    }
    host.run("volume ls --quiet -f name=data -f label=a=c")
        .says("data-2");
}

fn prune_asks_and_takes_the_nameless() {
    let host = Host::new();
    host.run("volume create named");
    host.run("volume create --label keep=yes labelled");
    host.run("volume create");
    host.run("create --name c1 -v used:/x -v /anonymous busybox true");
    assert_eq!(names(&host).len(), 5);
    let ask = |answer: &str| {
        host.command(["volume", "prune"])
            .stdin(answer)
            .run_in(&host.netns)
            .ok()
    };
    let asked = ask("n\n");
    assert!(asked.stdout.starts_with(
        "WARNING! This will remove anonymous local volumes not used by at least one container.\n"
    ));
    ask("");
    assert_eq!(names(&host).len(), 5);
    assert!(ask("y\n").stdout.contains("Deleted Volumes:"));
    assert_eq!(names(&host).len(), 4);
    host.run("volume prune -f")
        .says("Total reclaimed space: 0B");
    sh(
        &host,
        &["-v", "named:/x"],
        "dd if=/dev/zero of=/x/y bs=1000 count=2",
    )
    .ok();
    let pruned = host.run("volume prune -f -a --filter label!=keep");
    // On disk it takes whole blocks: `disk_usage` has it to the byte.
    let expected = "Deleted Volumes:\nnamed\n\nTotal reclaimed space: ";
    assert!(
        pruned.stdout.starts_with(expected) && pruned.stdout.ends_with("kB\n"),
        "{pruned}"
    );
    host.run("volume prune --force --all --filter label=keep=yes");
    assert!(names(&host).contains(&"used".to_owned()) && names(&host).len() == 2);
    host.run("rm c1");
    host.run("volume prune -af");
    assert!(names(&host).is_empty());
}

fn a_volume_in_use_stays() {
    let host = Host::new();
    let id = host.run("create -v data:/x busybox true").text().to_owned();
    let refusal = format!("remove data: volume is in use - [{id}]");
    for line in ["volume rm data", "volume rm -f data"] {
        host.try_run(line).exits(1).complains(&refusal);
    }
    host.run(&format!("rm -v {id}"));
    // It has a name, so it is not the container's.
    host.run("volume rm data");
}

fn a_volume_may_be_a_directory_of_the_host() {
    let host = Host::new();
    let device = host.folder().join("device");
    fs::create_dir(&device).unwrap();
    let option = format!("device={}", device.display());
    host.coracle([
        "volume",
        "create",
        "-o",
        "type=none",
        "-o",
        "o=bind",
        "-o",
        &option,
        "dev",
    ])
    .ok();
    sh(&host, &["-v", "dev:/www"], "ls /www; echo hello >/www/file")
        .ok()
        .says("");
    assert_eq!(fs::read_to_string(device.join("file")).unwrap(), "hello\n");
    let inspect = host.run("volume inspect dev").json();
    assert_eq!(
        inspect[0]["Options"]["device"],
        device.to_string_lossy().as_ref()
    );
    host.run("volume rm dev");
    assert!(device.join("file").exists(), "what is in it is the host's");
    host.coracle([
        "volume",
        "create",
        "--opt",
        "type=none",
        "--opt",
        "o=bind,ro",
        "-o",
        &option,
        "dev",
    ])
    .ok();
    sh(&host, &["-v", "dev:/x"], "touch /x/y")
        .exits(1)
        .complains("Read-only file system");
}

fn an_empty_volume_gets_what_the_image_has() {
    let host = Host::new();
    let image = host.folder().join("image");
    let script = "set -e; mkdir $1 && cd $1 && tar xf $2; mkdir data; chown 7:8 data; chmod 2750 data; cd data; \
        echo text >file; chown 9:10 file; chmod 4711 file; ln -s file link; ln file hard; mkfifo -m 600 pipe; mkdir -m 1777 dir; \
        cd ..; tar --numeric-owner -cf $1.tar .";
    Cmd::new("sh")
        .args(["-c", script, "sh"])
        .arg(&image)
        .arg(harness::images::busybox_tar())
        .run()
        .ok();
    let tar = host.folder().join("image.tar");
    host.coracle(["import", &tar.to_string_lossy(), "plain"])
        .ok();
    let list =
        "cd /data; stat -c '%n %F %a %u:%g %h' . file link hard pipe dir; readlink link; cat file";
    let show = |options: &[&str]| {
        let words = [&["run", "--rm"], options, &["plain", "sh", "-c", list]].concat();
        host.coracle(words).ok().stdout
    };
    let original = show(&[]);
    for expected in [". directory 2750 7:8", "file regular file 4711 9:10 2"] {
        assert!(original.contains(expected), "{original}");
    }
    assert_eq!(show(&["-v", "data:/data"]), original);
    assert_eq!(show(&["-v", "/data"]), original);
    // Filled once: what was removed does not come again.
    host.run("run --rm -v data:/data plain rm /data/file /data/link /data/hard /data/pipe");
    host.run("run --rm -v data:/data plain ls /data")
        .says("dir");
    host.run("run --rm -v bare:/data:nocopy plain ls /data")
        .says("");
    host.run("run --rm -v data:/data plain rmdir /data/dir");
    // Empty again, it is filled again, read-only or not, however the target is written.
    host.run("run --rm -v data:/bin/../data:ro plain ls /data/file");
}

fn a_nameless_volume_goes_with_the_last_container() {
    let host = Host::new();
    sh(&host, &["-v", "/x"], "touch /x/y").ok();
    assert!(names(&host).is_empty());
    host.run("create --name c1 -v /x -v named:/y busybox true");
    host.run("create --name c2 --volumes-from c1 busybox true");
    host.run("rm -v c1");
    assert_eq!(names(&host).len(), 2, "the other container has it");
    host.run("rm -v c2");
    assert_eq!(names(&host), ["named"]);
    // Without -v it stays; by its name it is anybody's.
    host.run("create --name c3 -v /x busybox true");
    host.run("rm c3");
    let nameless = names(&host)
        .into_iter()
        .find(|name| name.len() == 64)
        .unwrap();
    sh(&host, &["-v", &format!("{nameless}:/x")], "true").ok();
    assert!(names(&host).contains(&nameless));
}

fn volumes_from_brings_the_mounts_of_another() {
    let host = Host::new();
    let source = host.folder().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    let bind = format!("{}:/e", source.display());
    host.coracle([
        "create", "--name", "from", "-v", "/anon", "-v", "v1:/n:ro", "-v", &bind, "--tmpfs", "/t",
        "busybox", "true",
    ])
    .ok();
    let access = "for d in /anon /n /e; do touch $d/x 2>/dev/null && echo $d rw || echo $d ro; done; ls -d /t 2>&1 | tail -c 10";
    let show = |from: &str| sh(&host, &["--volumes-from", from], access).ok().stdout;
    assert!(show("from").starts_with("/anon rw\n/n ro\n/e rw\n"));
    assert!(show("from:ro").starts_with("/anon ro\n/n ro\n/e ro\n"));
    sh(
        &host,
        &["--volumes-from", "from"],
        "ls /anon; ls /e; ls -d /t",
    )
    .exits(1)
    .says("x\nfile\nx");
    // What is asked for stands above what is inherited.
    sh(
        &host,
        &["--volumes-from", "from", "--tmpfs", "/e", "-v", "/n"],
        "ls /e; touch /n/x",
    )
    .exits(1)
    .says("");
    for (from, text) in [
        ("from:bogus", "invalid mode: bogus"),
        ("nope", "No such container: nope"),
        ("", "volumes-from specification cannot be an empty string"),
    ] {
        sh(&host, &["--volumes-from", from], "true")
            .exits(125)
            .complains(text);
    }
    // At create: what becomes of the other one later does not matter.
    host.run("create --name c2 --volumes-from from:ro busybox ls /e/file");
    let inspect = host.inspect("c2");
    assert_eq!(
        inspect["HostConfig"]["VolumesFrom"],
        serde_json::json!(["from:ro"])
    );
    assert_eq!(inspect["Config"]["Volumes"], serde_json::Value::Null);
    assert_eq!(inspect["Mounts"].as_array().unwrap().len(), 3);
    host.run("rm from");
    host.run("start -a c2").says("/e/file");
}

fn the_volume_driver_is_local() {
    let host = Host::new();
    sh(
        &host,
        &["--volume-driver", "local", "-v", "data:/x"],
        "touch /x/y",
    )
    .ok();
    sh(&host, &["--volume-driver", "nope", "-v", "data:/x"], "true")
        .exits(125)
        .complains("create data: error looking up volume plugin nope: plugin \"nope\" not found");
}

/// `volume create` makes the directory, and then the row.
fn what_a_killed_creation_has_left_is_swept() {
    let host = Host::new();
    host.run("volume create data");
    let volumes = host.root().join("volumes");
    fs::create_dir_all(volumes.join("half/_data")).unwrap();
    fs::create_dir_all(volumes.join("bare")).unwrap();
    fs::create_dir_all(volumes.join("full/_data")).unwrap();
    fs::write(volumes.join("full/_data/file"), "somebody's").unwrap();
    host.run("ps");
    assert!(!volumes.join("half").exists() && !volumes.join("bare").exists());
    assert!(volumes.join("full/_data/file").exists() && volumes.join("data/_data").exists());
    assert_eq!(names(&host), ["data"]);
}
