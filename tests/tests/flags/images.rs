//! Images as they are listed, inspected, removed and searched for.

use harness::registry::Access;
use harness::{Host, Registry, images};
use serde_json::{Value, json};

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(
        images_are_chosen_by_name_and_filter,
        "images",
        "images -f",
        "images --filter",
        "images -a",
        "images --all"
    ),
    cell!(
        images_are_listed_in_every_form,
        "images --format",
        "images -q",
        "images --quiet",
        "images --no-trunc",
        "images --digests"
    ),
    cell!(
        digests_are_names_too,
        "images --digests",
        "rmi",
        "pull",
        "inspect"
    ),
    cell!(
        image_inspect_shows_all_that_the_config_says,
        "inspect",
        "inspect -f",
        "inspect --format",
        "inspect --type"
    ),
    cell!(
        rmi_refuses_in_dockers_words,
        "rmi",
        "rmi -f",
        "rmi --force",
        "rmi --no-prune"
    ),
    cell!(
        search_finds_local_names,
        "search",
        "search -f",
        "search --filter",
        "search --format",
        "search --limit",
        "search --no-trunc"
    ),
];

/// An image of busybox's files with a name, or without.
pub fn import(host: &Host, name: Option<&str>, changes: &[&str]) -> String {
    let tar = images::busybox_tar();
    let mut words = vec!["import"];
    for change in changes {
        words.extend(["-c", change]);
    }
    words.push(tar.to_str().unwrap());
    words.extend(name);
    host.coracle(words).ok().text().to_owned()
}

const NAMES: &str = "{{.Repository}}:{{.Tag}}";

/// The names that a listing has, in the order of the alphabet.
pub fn names(host: &Host, options: &[&str]) -> String {
    let words = [&["images", "--format", NAMES], options].concat();
    let output = host.coracle(words).ok();
    let mut lines: Vec<&str> = output.stdout.lines().collect();
    lines.sort_unstable();
    lines.join(" ")
}

fn images_are_chosen_by_name_and_filter() {
    let host = Host::builder().without_image().build();
    import(&host, Some("bb:1"), &["LABEL a=b"]);
    import(&host, Some("me/app:1"), &["LABEL a=c"]);
    import(&host, Some("localhost:5000/z:2"), &[]);
    import(&host, None, &[]);
    for (options, expected) in [
        (&[][..], "<none>:<none> bb:1 localhost:5000/z:2 me/app:1"),
        (&["-a"], "<none>:<none> bb:1 localhost:5000/z:2 me/app:1"),
        (&["--all"], "<none>:<none> bb:1 localhost:5000/z:2 me/app:1"),
        (&["bb"], "bb:1"),
        (&["bb:1"], "bb:1"),
        (&["bb:2"], ""),
        (&["b*"], "bb:1"),
        (&["nope"], ""),
        (&["Bad"], ""),
        (&["docker.io/library/bb"], "bb:1"),
        (&["-f", "dangling=true"], "<none>:<none>"),
        (
            &["-f", "dangling=false"],
            "bb:1 localhost:5000/z:2 me/app:1",
        ),
        (&["-f", "label=a"], "bb:1 me/app:1"),
        (&["--filter", "label=a=c"], "me/app:1"),
        (&["-f", "label=a", "-f", "label=a=b"], "bb:1"),
        (&["-f", "reference=*/*"], "localhost:5000/z:2 me/app:1"),
        (&["-f", "reference=b*:1"], "bb:1"),
        (
            &["-f", "reference=b?", "-f", "reference=me/*"],
            "bb:1 me/app:1",
        ),
        (&["-f", "reference=[a-c]b"], "bb:1"),
        (&["-f", "reference=localhost:5000/*"], "localhost:5000/z:2"),
        (&["-f", "before=me/app:1"], "bb:1"),
        (
            &["-f", "since=me/app:1"],
            "<none>:<none> localhost:5000/z:2",
        ),
        (&["-f", "since=bb:1", "-f", "label=a"], "me/app:1"),
    ] {
        assert_eq!(names(&host, options), expected, "{options:?}");
    }
    for (line, code, text) in [
        ("images -f foo=x", 1, "Invalid filter 'foo'"),
        ("images -f dangling=x", 1, "Invalid filter 'dangling="),
        ("images -f reference=[", 1, "syntax error in pattern"),
        ("images -f since=nope", 1, "No such image: nope:latest"),
        (
            "images -f x",
            125,
            "bad format of filter (expected name=value)",
        ),
        ("images bb me/app", 1, "requires at most 1 argument"),
        ("images --format {{.Foo}}", 1, "can't evaluate field Foo"),
    ] {
        host.try_run(line).exits(code).complains(text);
    }
}

fn images_are_listed_in_every_form() {
    let host = Host::builder().without_image().build();
    let id = import(&host, Some("bb:1"), &[]);
    let short = &id[7..19];
    for flag in ["-q", "--quiet"] {
        host.run(&format!("images {flag}")).says(short);
        host.run(&format!("images {flag} --no-trunc")).says(&id);
    }
    let table = |line: &str| {
        let text = host.run(line).stdout;
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).collect::<Vec<_>>()
    };
    let rows = table("images");
    assert_eq!(rows[0], "REPOSITORY TAG IMAGE ID CREATED SIZE");
    assert!(rows[1].starts_with(&format!("bb 1 {short} ")) && rows[1].ends_with("MB"));
    let rows = table("images --digests");
    assert_eq!(rows[0], "REPOSITORY TAG DIGEST IMAGE ID CREATED SIZE");
    assert!(rows[1].starts_with(&format!("bb 1 <none> {short} ")));
    assert_eq!(table("image ls"), table("images"));
    assert_eq!(table("image list"), table("images"));
    assert!(table("images --no-trunc")[1].contains(&id));
    host.coracle(["images", "--format", "table {{.Repository}}:\\t{{.ID}}"])
        .ok()
        .says(&format!("REPOSITORY:   IMAGE ID\nbb:           {short}"));
    // A format counts more than `-q`, as with Docker.
    let row = host.run("images -q --format json").json();
    for (key, value) in [
        ("Repository", "bb"),
        ("Tag", "1"),
        ("ID", short),
        ("Digest", "<none>"),
        ("SharedSize", "N/A"),
        ("UniqueSize", "N/A"),
        ("Containers", "N/A"),
    ] {
        assert_eq!(row[key], value, "{key}");
    }
    for key in ["CreatedAt", "CreatedSince", "Size", "VirtualSize"] {
        assert!(row[key].is_string(), "{key}: {row}");
    }
}

fn digests_are_names_too() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    registry.push(&images::redis_layout(), "7", "redis:7");
    let (repository, name) = (registry.image("redis"), registry.image("redis:7"));
    host.run(&format!("pull -q {name}"));
    let id = host.run("images -q --no-trunc").text().to_owned();
    let by_digest = host
        .coracle(["image", "inspect", "-f", "{{index .RepoDigests 0}}", &name])
        .ok()
        .text()
        .to_owned();
    let digest = by_digest.strip_prefix(&format!("{repository}@")).unwrap();
    assert!(digest.starts_with("sha256:") && digest.len() == 71);
    for line in [
        "images --digests --format {{.Repository}}:{{.Tag}}@{{.Digest}}",
        "images --format {{.Repository}}:{{.Tag}}@{{.Digest}}",
    ] {
        host.run(line).says(&format!("{name}@{digest}"));
    }
    let table = host.run("images --digests").stdout;
    assert!(
        table.contains(digest) && table.lines().count() == 2,
        "{table}"
    );
    assert_eq!(
        host.run(&format!("images -q {by_digest}")).text(),
        &id[7..19]
    );
    let inspect = host.run(&format!("image inspect {by_digest}")).json();
    assert_eq!(inspect[0]["Id"], id.as_str());
    assert_eq!(inspect[0]["RepoTags"], json!([name]));
    // Without its tag it is known by its digest, and dangling.
    host.run(&format!("pull -q {by_digest}"));
    host.run(&format!("run --rm --entrypoint true {by_digest}"));
    let told = host.run(&format!("rmi {by_digest}"));
    told.says(&format!("Untagged: {by_digest}"));
    host.run("images --format {{.Tag}}@{{.Digest}}")
        .says("7@<none>");
    let told = host.run(&format!("rmi {name}"));
    let layers = told
        .stdout
        .lines()
        .filter(|line| line.starts_with("Deleted: sha256:"));
    assert_eq!(layers.count(), 3, "{told}");
    host.run(&format!("pull -q {by_digest}"));
    host.run("images --format {{.Repository}}:{{.Tag}}")
        .says(&format!("{repository}:<none>"));
    host.run("images -q -f dangling=true").says(&id[7..19]);
    let pruned = host.run("image prune -f");
    assert!(
        pruned.stdout.starts_with(&format!(
            "Deleted Images:\nuntagged: {by_digest}\ndeleted: {id}\n"
        )),
        "{pruned}"
    );
    // By a short ID, and several.
    host.run(&format!("pull -q {name}"));
    import(&host, Some("other:1"), &[]);
    let told = host.run(&format!("image rm {} other:1", &id[7..15]));
    assert!(
        told.stdout.contains(&format!("Deleted: {id}"))
            && told.stdout.contains("Untagged: other:1")
    );
    host.run("images -q").says("");
}

fn image_inspect_shows_all_that_the_config_says() {
    let host = Host::builder().without_image().build();
    let id = import(
        &host,
        Some("bb:1"),
        &[
            "ONBUILD RUN echo hi",
            "HEALTHCHECK --interval=5s CMD true",
            "LABEL a=b",
            "EXPOSE 80",
            "VOLUME /data",
            "STOPSIGNAL SIGQUIT",
            "ENTRYPOINT [\"sh\"]",
            "WORKDIR /tmp",
            "USER web",
            "ENV A=1",
        ],
    );
    let found = host.run("image inspect bb:1").json();
    let image = &found[0];
    let config = &image["Config"];
    assert_eq!(image["Id"], id.as_str());
    assert_eq!(image["RepoTags"], json!(["bb:1"]));
    assert_eq!(image["RepoDigests"], json!([]));
    assert_eq!(image["Os"], "linux");
    assert_eq!(image["Architecture"], harness::oci::this_architecture());
    assert_eq!(image["RootFS"]["Type"], "layers");
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 1);
    assert_eq!(image["Comment"], "Imported from -");
    assert!(image["Size"].as_u64().unwrap() > 1_000_000);
    for key in [
        "Parent",
        "Author",
        "DockerVersion",
        "Created",
        "GraphDriver",
    ] {
        assert!(!image[key].is_null(), "{key}: {image:#}");
    }
    for (key, value) in [
        ("OnBuild", json!(["RUN echo hi"])),
        (
            "Healthcheck",
            json!({"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_u64}),
        ),
        ("Labels", json!({"a": "b"})),
        ("ExposedPorts", json!({"80/tcp": {}})),
        ("Volumes", json!({"/data": {}})),
        ("StopSignal", json!("SIGQUIT")),
        ("Entrypoint", json!(["sh"])),
        ("WorkingDir", json!("/tmp")),
        ("User", json!("web")),
        ("Cmd", Value::Null),
        ("AttachStdin", json!(false)),
    ] {
        assert_eq!(config[key], value, "{key}: {config:#}");
    }
    for line in [
        "inspect bb:1",
        "inspect --type image bb:1",
        &format!("image inspect {}", &id[7..12]),
    ] {
        assert_eq!(host.run(line).json(), found, "{line}");
    }
    host.coracle(["image", "inspect", "-f", "{{json .Config.OnBuild}}", "bb:1"])
        .ok()
        .says("[\"RUN echo hi\"]");
    // Several, one of which is not there.
    let some = host.coracle([
        "image",
        "inspect",
        "--format",
        "{{.RepoTags}}",
        "bb:1",
        "nope",
        "bb:1",
    ]);
    let some = some.exits(1).complains("No such image: nope");
    some.says("[bb:1]\n[bb:1]");
    host.try_run("image inspect nope")
        .exits(1)
        .complains("No such image: nope")
        .says("[]");
    host.try_run("image inspect Bad!").exits(1).says("[]");
    host.try_run("image inspect")
        .exits(1)
        .complains("requires at least 1 argument");
    host.coracle(["image", "inspect", "-f", "{{.Foo.Bar}}", "bb:1"])
        .exits(1);
}

fn rmi_refuses_in_dockers_words() {
    let host = Host::new();
    let id = host.run("images -q --no-trunc").text().to_owned();
    let short = &id[7..19];
    let container = host.run("create busybox true").text()[..12].to_owned();
    for (line, text) in [
        (
            "rmi busybox".to_owned(),
            format!(
                "conflict: unable to remove repository reference \"busybox\" (must force) - container {container} is using its referenced image {short}"
            ),
        ),
        (
            format!("rmi {short}"),
            format!(
                "conflict: unable to delete {short} (must be forced) - image is being used by container {container}"
            ),
        ),
        (
            "rmi nope".to_owned(),
            "No such image: nope:latest".to_owned(),
        ),
        (
            "rmi Bad".to_owned(),
            "repository name must be lowercase".to_owned(),
        ),
        ("rmi".to_owned(), "requires at least 1 argument".to_owned()),
    ] {
        host.try_run(&line).exits(1).complains(&text);
    }
    host.try_run("image rm --bogus x")
        .exits(125)
        .complains("unknown flag: --bogus");
    for flag in ["-f", "--force"] {
        host.run(&format!("rmi {flag} nope"))
            .complains("No such image: nope");
    }
    // By force its name goes, and the container keeps what it needs.
    host.run("rmi -f busybox").says("Untagged: busybox:latest");
    host.try_run(&format!("rmi -f {short}"))
        .exits(1)
        .complains(&format!("unable to delete {short} (cannot be forced) - image is being used by container {container}"));
    host.run(&format!("start -a {container}"));
    host.run(&format!("rm {container}"));
    let told = host.run(&format!("rmi --no-prune {id}"));
    assert!(
        told.stdout
            .starts_with(&format!("Deleted: {id}\nDeleted: sha256:")),
        "{told}"
    );
    // One that is not there does not keep the others.
    import(&host, Some("bb:1"), &[]);
    let told = host
        .try_run("rmi nope bb:1")
        .exits(1)
        .complains("No such image: nope");
    assert!(
        told.stdout.starts_with("Untagged: bb:1\nDeleted: "),
        "{told}"
    );
    // One whose layers are damaged goes, too.
    import(&host, Some("bb:1"), &[]);
    for entry in std::fs::read_dir(host.root().join("layers")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with(".staging") {
            std::fs::remove_dir_all(path).unwrap();
        }
    }
    host.run("rmi bb:1");
    host.run("images -q").says("");
}

fn search_finds_local_names() {
    let host = Host::builder().without_image().build();
    for name in ["redis:6", "redis:7", "registry.local/redis:1", "me/redis:1"] {
        import(
            &host,
            Some(name),
            if name == "redis:6" {
                &["LABEL a=b"]
            } else {
                &[]
            },
        );
    }
    import(&host, None, &[]);
    let found = |options: &[&str]| {
        let words = [&["search", "--format", "{{.Name}} {{.Tags}}"], options].concat();
        host.coracle(words).ok().text().to_owned()
    };
    assert_eq!(found(&["re"]), "redis 7, 6\nregistry.local/redis 1");
    assert_eq!(found(&["redis:6"]), "redis 6");
    assert_eq!(found(&["docker.io/library/red"]), "redis 7, 6");
    assert_eq!(found(&["edis"]), "");
    assert_eq!(found(&[""]).lines().count(), 3);
    assert_eq!(found(&["--limit", "1", "re"]), "redis 7, 6");
    assert_eq!(found(&["--filter", "label=a", "re"]), "redis 6");
    assert_eq!(found(&["-f", "label=a=c", "re"]), "");
    let table = host.run("search redis").stdout;
    let mut lines = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    assert_eq!(lines.next().unwrap(), "NAME TAGS CREATED");
    assert!(lines.next().unwrap().starts_with("redis 7, 6 "), "{table}");
    for number in 10..30 {
        import(&host, Some(&format!("many:tag-{number}")), &[]);
    }
    let cut = found(&["many"]);
    assert!(
        cut.ends_with('…') && cut.chars().count() == "many ".len() + 45,
        "{cut}"
    );
    assert_eq!(found(&["--no-trunc", "many"]).matches("tag-").count(), 20);
    for (line, code, text) in [
        ("search", 1, "requires 1 argument"),
        ("search a b", 1, "requires 1 argument"),
        (
            "search --limit 101 x",
            1,
            "Limit 101 is outside the range of [1, 100]",
        ),
        (
            "search --limit x x",
            125,
            "invalid argument \"x\" for \"--limit\" flag",
        ),
        ("search --filter foo=x x", 1, "Invalid filter 'foo'"),
        ("search --filter stars=3 x", 1, "Invalid filter 'stars'"),
    ] {
        host.try_run(line).exits(code).complains(text);
    }
}
