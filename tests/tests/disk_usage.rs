//! What is said about disk space is what du(1) finds, to the byte: sizes, what is reclaimable, what was reclaimed; and what is in use
//! is never taken.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::oci::{self, Config, Image};
use harness::registry::Access;
use harness::{Cmd, Host, Registry, eventually, images, usage};
use serde_json::Value;

/// Bytes of allocated blocks, as du(1) counts them, without what is no content: it grows with what is done.
fn content(host: &Host) -> u64 {
    let aside = ["coracle.db*", "seccomp", "reserve"].map(|name| format!("--exclude={name}"));
    du(host, &aside)
}

fn du(host: &Host, options: &[String]) -> u64 {
    usage::du(&host.root(), options)
}

/// A row of `system df`: what is there, and what could go.
fn amount(host: &Host, kind: &str) -> (u64, u64) {
    let rows = host
        .coracle(["system", "df", "--format", "{{json .}}"])
        .ok();
    let rows = rows
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let row = rows
        .into_iter()
        .find(|row: &Value| row["Type"] == kind)
        .unwrap();
    let bytes = |key: &str| row[key].as_u64().unwrap();
    (bytes("SizeBytes"), bytes("ReclaimableBytes"))
}

fn verbose(host: &Host) -> Value {
    host.coracle(["system", "df", "-v", "--format", "json"])
        .ok()
        .json()
}

#[track_caller]
fn check_sum(host: &Host) {
    usage::check_sum(&host.root(), &|line| host.try_run(line));
}

/// As `prune` writes bytes: four digits.
fn words(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    let whole = value.trunc().to_string().len();
    let text = format!("{value:.*}", 4 - whole);
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{}", ["B", "kB", "MB", "GB"][unit])
}

/// A prune frees what it says, what `system df` has said before, and this is what du(1) finds.
#[track_caller]
fn check_prune(host: &Host, line: &str, announced: u64) -> u64 {
    let before = content(host);
    let told = host.run(line);
    let after = content(host);
    let freed = before - after;
    let said = told
        .text()
        .rsplit_once("Total reclaimed space: ")
        .unwrap()
        .1;
    assert_eq!(said, words(freed), "{line}: {told}");
    assert_eq!(freed, announced, "{line}: {told}");
    check_sum(host);
    freed
}

/// Images of busybox and a layer each, in a registry: `image("a:1")` has `/a`.
fn push_images(host: &Host, registry: &Registry<'_>, names: &[&str]) {
    let shared = images::layer(
        host,
        "shared",
        "head -c 300000 /dev/urandom >file; ln file again; truncate -s 50M hole; mkdir -p deep/er; ln -s / link",
    );
    for name in names {
        let script = format!("head -c 123457 /dev/urandom >{name}");
        let own = images::layer(host, name, &script);
        let layout = host.folder().join(format!("layout-{name}"));
        let config = Config {
            cmd: &["sh"],
            ..Config::default()
        };
        let image = Image::of(&[images::busybox_tar(), shared.clone(), own], config);
        oci::write_layout(&layout, "1", &[image]);
        registry.push(&layout, "1", &format!("{name}:1"));
    }
}

#[test]
fn nothing_in_root_is_unaccounted_for_and_prunes_free_what_they_say() {
    let host = Host::builder().without_image().build();
    host.run("images");
    check_sum(&host);
    let registry = Registry::start(&host, Access::Open);
    push_images(&host, &registry, &["a", "b", "c"]);
    for name in ["a:1", "b:1", "c:1"] {
        host.run(&format!("pull -q {}", registry.image(name)));
        check_sum(&host);
    }
    let (a, b) = (registry.image("a:1"), registry.image("b:1"));
    let script = "head -c 100001 /dev/zero >/own; mkdir -p /x/y; echo said; rm /bin/vi";
    host.coracle([
        "run",
        "--name",
        "ended",
        "-v",
        "named:/v",
        "-v",
        "/nameless",
        &a,
        "sh",
        "-c",
        script,
    ])
    .ok();
    let script = "head -c 70001 /dev/zero >/v/in-volume";
    host.coracle(["run", "--rm", "-v", "named:/v", &a, "sh", "-c", script])
        .ok();
    host.coracle(["create", "--name", "made", &b]).ok();
    let made = host.run("volume create").text().to_owned();
    host.coracle(["run", "-d", "--name", "runs", &a, "sleep", "1000"])
        .ok();
    check_sum(&host);

    // Images share layers: c alone is not in use, and of it only what a and b do not have.
    let df = verbose(&host);
    let of_c = df["Images"].as_array().unwrap().iter();
    let of_c = of_c
        .into_iter()
        .find(|row| row["Repository"].as_str().unwrap().ends_with("/c"));
    let unique = of_c.unwrap()["UniqueSizeBytes"].as_u64().unwrap();
    assert!((123_457..200_000).contains(&unique), "{df:#}");
    let (size, reclaimable) = amount(&host, "Images");
    assert_eq!(reclaimable, unique);
    host.run("image prune -f").says("Total reclaimed space: 0B");
    check_prune(&host, "image prune -af", unique);
    assert_eq!(amount(&host, "Images"), (size - unique, 0));

    let (size, reclaimable) = amount(&host, "Containers");
    assert!(
        reclaimable > 100_001 && reclaimable < size,
        "{size} {reclaimable}"
    );
    check_prune(&host, "container prune -f", reclaimable);
    assert_eq!(amount(&host, "Containers").1, 0);
    assert_eq!(host.ids().len(), 1);

    let (size, _) = amount(&host, "Local Volumes");
    let nameless = host
        .run("volume ls -q")
        .stdout
        .lines()
        .filter(|name| *name != "named")
        .count();
    assert_eq!(
        nameless, 2,
        "those of pruned containers stay, as with Docker; {made}"
    );
    let before = content(&host);
    host.run("volume prune -f");
    let freed = before - content(&host);
    let (left, reclaimable) = amount(&host, "Local Volumes");
    assert_eq!((left, reclaimable), (size - freed, left));
    assert!(left > 70_001);
    check_prune(&host, "volume prune -af", reclaimable);

    // A name taken away leaves an image that its container holds.
    host.run(&format!("rmi -f {a}"));
    assert_eq!(
        amount(&host, "Images").1,
        amount(&host, "Images").0 - held(&host)
    );
    host.run("rm -f runs");
    let all = amount(&host, "Images");
    assert_eq!(all.0, all.1);
    check_prune(&host, "system prune -af --volumes", all.1);
    check_nothing_is_left(&host);
}

/// Bytes of the images that containers have.
fn held(host: &Host) -> u64 {
    let df = verbose(host);
    let images = df["Images"].as_array().unwrap().iter();
    let held = images.filter(|row| row["Containers"] != "0");
    held.map(|row| row["SizeBytes"].as_u64().unwrap()).sum()
}

#[track_caller]
fn check_nothing_is_left(host: &Host) {
    usage::check_nothing_is_left(&host.root());
}

#[test]
fn rubbish_and_layers_of_no_image_are_seen_and_freed() {
    let host = Host::new();
    let layers = host.root().join("layers");
    let size = fs::metadata(layers.join(".lock")).unwrap().len();
    assert_eq!(size, 0);
    // What a killed pull and a killed removal leave.
    for path in [
        layers.join(".staging/dead/0/usr"),
        layers.join(format!("{:0>32}", "abc")),
        host.root().join(format!("images/{:0>64}", "abc")),
    ] {
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("file"), [1; 54_321]).unwrap();
    }
    let rubbish = usage::other(&verbose(&host), "rubbish");
    assert!(rubbish > 3 * 54_321, "{rubbish}");
    check_sum(&host);
    assert_eq!(amount(&host, "Images").1, amount(&host, "Images").0);
    host.run("create --name holds busybox true");
    assert_eq!(amount(&host, "Images").1, rubbish);
    // A live process holds its own: it is not rubbish, and stays.
    let held = layers.join(".staging/held");
    fs::create_dir_all(&held).unwrap();
    fs::write(held.join("file"), [1; 12_345]).unwrap();
    let holder = Cmd::new("flock")
        .arg("--no-fork")
        .arg(&held)
        .args([
            "sh",
            "-c",
            "touch \"$0\"; exec sleep 1000",
            host.folder().join("is-held").to_str().unwrap(),
        ])
        .spawn_in(&host.netns);
    eventually("it is held", || fs::metadata(host.folder().join("is-held")));
    let df = verbose(&host);
    assert!(usage::other(&df, "being pulled") > 12_345, "{df:#}");
    assert_eq!(usage::other(&df, "rubbish"), rubbish);
    check_prune(&host, "image prune -f", rubbish);
    assert!(held.join("file").exists());
    holder.signal(nix::sys::signal::Signal::SIGTERM);
    let _ = holder.wait();
    eventually("it is rubbish now", || {
        match usage::other(&verbose(&host), "being pulled") {
            0 => Ok(()),
            bytes => Err(bytes),
        }
    });
    let rubbish = usage::other(&verbose(&host), "rubbish");
    // Layers without an image, as pulls that came to nothing keep them.
    host.run("rm holds");
    let database = rusqlite::Connection::open(host.root().join("coracle.db")).unwrap();
    database
        .execute_batch(
            "DELETE FROM image_names; DELETE FROM image_layers; DELETE FROM images;
             INSERT INTO kept_layers SELECT chain_id, unixepoch() FROM layers;",
        )
        .unwrap();
    drop(database);
    let df = verbose(&host);
    let unused = usage::other(&df, "layers of no image");
    assert!(unused > 1_000_000, "{df:#}");
    let config = usage::other(&df, "rubbish") - rubbish;
    assert!(config > 0, "{df:#}");
    // A filter is about images: what a pull has kept stays, but rubbish goes.
    check_prune(&host, "image prune -f --filter until=1h", rubbish + config);
    let told = host.run("images -aq");
    told.says("");
    check_prune(&host, "system prune -f", unused);
    check_nothing_is_left(&host);
}

/// Works for as long as what it is handed says so.
type Worker<'a> = &'a (dyn Fn(&dyn Fn() -> bool) + Sync);

/// Until the time is up, each on a thread of its own.
fn together(limit: Duration, workers: &[Worker<'_>]) {
    let end = Instant::now() + limit;
    let failed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in workers {
            let goes_on = || Instant::now() < end && !failed.load(Ordering::Relaxed);
            let failed = &failed;
            scope.spawn(move || {
                let result =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker(&goes_on)));
                if let Err(panic) = result {
                    failed.store(true, Ordering::Relaxed);
                    std::panic::resume_unwind(panic);
                }
            });
        }
    });
}

#[test]
fn an_image_that_a_container_is_being_made_of_is_never_pruned() {
    let host = Host::new();
    let tar = images::busybox_tar();
    let made = std::sync::atomic::AtomicUsize::new(0);
    let gone = std::sync::atomic::AtomicUsize::new(0);
    let makes = |goes_on: &dyn Fn() -> bool| {
        let mut number = 0;
        while goes_on() {
            number += 1;
            let name =
                format!("c-{:?}-{number}", std::thread::current().id()).replace(['(', ')'], "");
            let output = host.coracle([
                "create", "--pull", "never", "--name", &name, "busybox", "echo", "whole",
            ]);
            if output.code() != 0 {
                assert!(output.stderr.contains("No such image"), "{output}");
                gone.fetch_add(1, Ordering::Relaxed);
                host.coracle(["import".as_ref(), tar.as_os_str(), "busybox".as_ref()])
                    .ok();
                continue;
            }
            // The container holds its image, whoever prunes.
            host.coracle(["start", "-a", &name]).ok().says("whole");
            host.coracle(["rm", &name]).ok();
            made.fetch_add(1, Ordering::Relaxed);
        }
    };
    let prunes = |goes_on: &dyn Fn() -> bool| {
        while goes_on() {
            host.run("image prune -af");
            host.try_run("rmi busybox");
        }
    };
    together(Duration::from_secs(15), &[&makes, &makes, &prunes]);
    let (made, gone) = (made.into_inner(), gone.into_inner());
    assert!(
        made > 0 && gone > 0,
        "{made} made, {gone} times the image was gone"
    );
    check_sum(&host);
    host.run("system prune -af");
    check_nothing_is_left(&host);
}

#[test]
fn pulls_and_prunes_side_by_side_leave_whole_images_and_no_rubbish() {
    let host = Host::builder().without_image().build();
    host.run("images");
    let registry = Registry::start(&host, Access::Open);
    push_images(&host, &registry, &["a", "b"]);
    let (a, b) = (registry.image("a:1"), registry.image("b:1"));
    let pulls = |name: &str, goes_on: &dyn Fn() -> bool| {
        while goes_on() {
            host.run(&format!("pull -q {name}"));
        }
    };
    let pulls_a = |goes_on: &dyn Fn() -> bool| pulls(&a, goes_on);
    let pulls_b = |goes_on: &dyn Fn() -> bool| pulls(&b, goes_on);
    let prunes = |goes_on: &dyn Fn() -> bool| {
        while goes_on() {
            host.run("system prune -af");
            host.run("system df -v");
        }
    };
    together(Duration::from_secs(15), &[&pulls_a, &pulls_b, &prunes]);
    for (name, file) in [(&a, "/a"), (&b, "/b")] {
        host.run(&format!("pull -q {name}"));
        host.coracle(["run", "--rm", name, "wc", "-c", file])
            .ok()
            .says(&format!("123457 {file}"));
    }
    check_sum(&host);
    let df = verbose(&host);
    assert_eq!(usage::other(&df, "being pulled"), 0, "{df:#}");
    let (size, reclaimable) = amount(&host, "Images");
    assert_eq!(size, reclaimable);
    check_prune(&host, "image prune -af", size);
    check_nothing_is_left(&host);
}

/// What of the answers does not depend on what counts as a byte is Docker's.
#[test]
fn the_tables_are_dockers() {
    let hosts = [Host::new(), Host::builder().docker().build()];
    let answers = hosts.each_ref().map(|host| {
        host.run("run --name ended busybox sh -c 'true'");
        host.run("create --name made -v named:/x -v /nameless busybox true");
        host.run("volume create unused");
        let mut answers = Vec::new();
        for line in [
            "system df --format {{.Type}}|{{.TotalCount}}|{{.Active}}",
            "images --format {{.Repository}}|{{.Tag}}|{{.Digest}}|{{.Size}}|{{.VirtualSize}}",
            "image inspect --format {{.Size}}|{{.Os}}|{{.Architecture}}|{{.RepoTags}}|{{.RepoDigests}}|{{.Comment}} busybox",
        ] {
            answers.push(host.run(line).stdout);
        }
        let headings = |line: &str| {
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            let text = host.run(line).stdout;
            let is_heading = |line: &&str| !line.is_empty() && !line.chars().any(char::is_lowercase);
            text.lines().filter(is_heading).map(words).collect::<Vec<_>>()
        };
        answers.push(headings("system df").join("\n"));
        // The last table of ours is about what Docker does not tell.
        answers.push(headings("system df -v")[..4].join("\n"));
        answers.push(headings("images --digests").join("\n"));
        answers
    });
    assert_eq!(answers[0], answers[1]);
    hosts[0].run("rm ended made");
    hosts[0].run("system prune -af --volumes");
}
