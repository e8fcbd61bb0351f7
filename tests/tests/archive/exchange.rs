//! The same image here and elsewhere, with the same ID.

use harness::{Cmd, Host, Output};

use crate::{LOOK, id_of, place, pulled, shell};

/// Podman with everything of its own in the host's folder.
fn podman(host: &Host, line: &str) -> Output {
    let own = |name: &str| place(host, "podman").join(name).display().to_string();
    Cmd::new("podman")
        .args(["--cgroup-manager", "cgroupfs", "--events-backend", "none"])
        .args(["--storage-driver", "vfs", "--root", &own("root")])
        .args(["--runroot", &own("run"), "--tmpdir", &own("tmp")])
        .args(line.split_whitespace())
        .run_in(&host.netns)
}

#[test]
fn what_is_saved_here_loads_in_docker_and_comes_back() {
    let host = Host::new();
    let docker = Host::builder().docker().without_image().build();
    let name = pulled(&host, "");
    let id = id_of(&host, &name);
    let expected = host.coracle(["run", "--rm", &name, "sh", "-c", LOOK]).ok();
    assert!(expected.stdout.starts_with("from the second layer\n"));
    assert!(!expected.stdout.contains("index.html") && expected.stdout.contains("No such file"));

    for format in ["both", "docker"] {
        let tar = place(&host, &format!("{format}.tar")).display().to_string();
        host.coracle(["save", "--format", format, "-o", &tar, &name, "busybox"])
            .ok();
        let said = docker.run(&format!("load -i {tar}")).stdout;
        assert_eq!(
            said,
            format!("Loaded image: {name}\nLoaded image: busybox:latest\n")
        );
        assert_eq!(id_of(&docker, &name), id);
        let run = ["run", "--rm", "--network", "none", &name, "sh", "-c", LOOK];
        assert_eq!(docker.coracle(run).ok().stdout, expected.stdout);
        assert_eq!(id_of(&docker, "busybox"), id_of(&host, "busybox"));
        docker.run(&format!("rmi -f {name} busybox"));
    }

    // There and back: by Docker's own archive, by file and pipe, plain and packed.
    let tar = place(&host, "both.tar").display().to_string();
    docker.run(&format!("load -i {tar}"));
    docker.run(&format!("tag {name} other:2"));
    let back = place(&host, "back.tar").display().to_string();
    docker.run(&format!("save -o {back} {name} other:2 busybox"));
    for load in [
        format!("$CORACLE load -i {back}"),
        format!("$CORACLE load --input {back}"),
        format!("$CORACLE load <{back}"),
        format!("cat {back} | $CORACLE load"),
        format!("gzip -c {back} | $CORACLE load -q"),
        format!("zstd -qc {back} >{back}.zst; $CORACLE load -i {back}.zst"),
    ] {
        host.run(&format!("rmi {name} busybox"));
        let said = shell(&host, &load).ok().stdout;
        assert_eq!(
            said,
            format!("Loaded image: {name}\nLoaded image: other:2\nLoaded image: busybox:latest\n"),
            "{load}"
        );
        assert_eq!(id_of(&host, "other:2"), id);
        let again = host.coracle(["run", "--rm", &name, "sh", "-c", LOOK]).ok();
        assert_eq!(again.stdout, expected.stdout, "{load}");
        host.run("rmi other:2");
    }
    host.run(&format!("rmi {name} busybox"));
    assert_eq!(host.run("images -q").stdout, "");
}

#[test]
fn podman_and_skopeo_read_what_is_saved_here_and_the_other_way_round() {
    let host = Host::new();
    let name = pulled(&host, "");
    let id = id_of(&host, &name);
    let plain = id.trim_start_matches("sha256:");
    for (format, transports) in [
        ("both", &["docker-archive", "oci-archive"][..]),
        ("docker", &["docker-archive"]),
        ("oci", &["oci-archive"]),
    ] {
        let tar = place(&host, &format!("{format}.tar")).display().to_string();
        host.coracle(["save", "--format", format, "--output", &tar, &name])
            .ok();
        for transport in transports {
            let copy = place(&host, &format!("{format}-{transport}"));
            let to = format!("dir:{}", copy.display());
            Cmd::new("skopeo")
                .args(["--insecure-policy", "copy", "-q"])
                .args([format!("{transport}:{tar}"), to])
                .run()
                .ok();
            // A config is kept under its digest.
            assert!(copy.join(plain).is_file(), "{format} by {transport}");
        }
        podman(&host, &format!("load -q -i {tar}")).ok();
        podman(&host, &format!("image inspect --format {{{{.Id}}}} {name}"))
            .ok()
            .says(plain);
        if format != "both" {
            podman(&host, "rmi -fa").ok();
        }
    }
    let tar = place(&host, "both.tar").display().to_string();
    podman(&host, &format!("load -q -i {tar}")).ok();
    let run = format!(
        "--runtime runc run --rm --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 --network none {name} cat /data/hard"
    );
    podman(&host, &run).ok().says("from the second layer");

    for format in ["docker-archive", "oci-archive"] {
        let back = place(&host, format).display().to_string();
        podman(
            &host,
            &format!("save -q --format {format} -o {back} {name}"),
        )
        .ok();
        for load in [
            format!("$CORACLE load -i {back}"),
            format!("cat {back} | $CORACLE load"),
        ] {
            host.run(&format!("rmi {name}"));
            shell(&host, &load)
                .ok()
                .says(&format!("Loaded image: {name}"));
            assert_eq!(id_of(&host, &name), id, "{load}");
            host.coracle(["run", "--rm", &name, "cat", "/data/hard"])
                .ok()
                .says("from the second layer");
        }
    }
}

#[test]
fn the_same_images_make_the_same_archive() {
    let host = Host::new();
    let name = pulled(&host, "--sparse");
    host.run(&format!("create --name c1 {name}"));
    let save = format!("$CORACLE save {name} busybox");
    let line = format!(
        "cd {}; {save} >a; {save} | cmp - a",
        host.folder().display()
    );
    shell(&host, &line).ok();
    // Loaded from it, and saved again.
    let line = format!(
        "cd {}; $CORACLE rm c1; $CORACLE rmi {name} busybox; $CORACLE load -q -i a; {save} | cmp - a",
        host.folder().display()
    );
    shell(&host, &line).ok();
}
