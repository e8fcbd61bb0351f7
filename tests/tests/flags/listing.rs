//! How containers are shown: `ps`, `inspect`, the longer spelling of commands, completions, the manual, and templates.

use std::fs;

use harness::{Cmd, Host};

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(
        ps_shows_sizes_and_chooses_by_filter,
        "ps",
        "ps --all",
        "ps -a",
        "ps --filter",
        "ps -f",
        "ps --format",
        "ps --last",
        "ps -n",
        "ps --latest",
        "ps -l",
        "ps --no-trunc",
        "ps --quiet",
        "ps -q",
        "ps --size",
        "ps -s",
    ),
    cell!(ps_refuses_bad_filters_in_dockers_words, "ps --filter"),
    cell!(
        inspect_has_the_keys_that_scripts_look_for,
        "inspect",
        "inspect --format",
        "network inspect",
        "run --workdir",
        "run -w"
    ),
    cell!(
        inspect_looks_among_kinds_and_adds_sizes,
        "inspect",
        "inspect --format",
        "inspect -f",
        "inspect --size",
        "inspect -s",
        "inspect --type",
        "container inspect",
        "image inspect",
        "image inspect -f",
        "image inspect --format",
    ),
    cell!(
        the_longer_spelling_is_the_same_command,
        "container ls",
        "container run",
        "container create",
        "container start",
        "container stop",
        "container rm",
        "container exec",
        "container cp",
        "container diff",
        "container port",
        "image ls",
        "image rm",
        "image import",
    ),
    cell!(
        completions_load_and_complete,
        "completion bash",
        "completion zsh",
        "completion fish"
    ),
    cell!(every_command_has_a_page_in_the_manual, "--help"),
    cell!(
        templates_give_what_docker_gives,
        "inspect --format",
        "ps --format"
    ),
];

fn ps_shows_sizes_and_chooses_by_filter() {
    let host = Host::new();
    host.run("network create blue");
    host.run("run -d --stop-timeout 0 --name up -v vol:/data -l tier=front -p 8080:80 --network blue busybox sleep 1000");
    host.coracle([
        "run",
        "--name",
        "done",
        "busybox",
        "sh",
        "-c",
        "echo 12345 >/made; exit 3",
    ])
    .exits(3);
    host.run("create --name fresh busybox true");
    let names = |options: &str| {
        let line = format!("ps --format {{{{.Names}}}} {options}");
        let text = host.run(&line).stdout;
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (options, expected) in [
        ("", "up"),
        ("-a", "fresh done up"),
        ("--all", "fresh done up"),
        ("-l", "fresh"),
        ("--latest", "fresh"),
        ("-n 2", "fresh done"),
        ("--last 2", "fresh done"),
        ("-a -f name=do", "done"),
        ("--filter status=exited", "done"),
        ("-a -f exited=3", "done"),
        ("-a -f label=tier", "up"),
        ("-a -f label=tier=back", ""),
        ("-a -f volume=vol", "up"),
        ("-a -f network=blue", "up"),
        ("-a -f publish=8080", "up"),
        ("-a -f expose=80", "up"),
        ("-a -f ancestor=busybox", "fresh done up"),
        ("-a -f before=fresh", "done up"),
        ("-a -f since=up", "fresh done"),
        ("-a -f health=none", "fresh done up"),
        ("-a -f health=healthy", ""),
        ("-a -f is-task=true", ""),
        ("-a -f status=paused", ""),
        ("-a -f status=restarting", ""),
    ] {
        assert_eq!(names(options), expected, "{options}");
    }
    let size = host.run("ps -a -s --format {{.Names}}:{{.Size}}").stdout;
    assert!(
        size.lines()
            .any(|line| line.starts_with("done:6B (virtual ")),
        "{size}"
    );
    assert!(
        size.lines()
            .any(|line| line.starts_with("fresh:0B (virtual ")),
        "{size}"
    );
    for option in ["-s", "--size"] {
        assert!(
            host.run(&format!("ps {option}"))
                .stdout
                .lines()
                .next()
                .unwrap()
                .ends_with("SIZE")
        );
    }
    let id = host.run("ps -q --no-trunc").text().to_owned();
    assert_eq!(id.len(), 64);
    assert_eq!(host.run("ps --quiet").text(), &id[..12]);
    let row = host.run("ps --format json").json();
    for (key, value) in [
        ("Names", "up"),
        ("Mounts", "vol"),
        ("LocalVolumes", "1"),
        ("Networks", "blue"),
        ("State", "running"),
        ("Labels", "tier=front"),
    ] {
        assert_eq!(row[key], value, "{key}");
    }
}

fn ps_refuses_bad_filters_in_dockers_words() {
    let host = Host::new();
    for (filter, text) in [
        ("bogus=1", "Invalid filter 'bogus'"),
        ("status=x", "Invalid filter 'status=x'"),
        ("health=x", "Unrecognised filter value for health: x"),
        ("is-task=x", "Invalid filter 'is-task=[x]'"),
        ("before=nope", "No such container: nope"),
    ] {
        host.try_run(&format!("ps -f {filter}"))
            .exits(1)
            .complains(text);
    }
    host.try_run("ps --format {{.Nope}}")
        .exits(1)
        .complains("can't evaluate field Nope");
}

fn inspect_looks_among_kinds_and_adds_sizes() {
    let host = Host::new();
    host.coracle([
        "run",
        "--name",
        "c1",
        "-v",
        "vol:/v",
        "busybox",
        "sh",
        "-c",
        "echo 12345 >/made",
    ])
    .ok();
    for option in ["-s", "--size"] {
        let sizes = host.run(&format!("inspect {option} -f {{{{.SizeRw}}}} c1"));
        assert_eq!(sizes.text(), "6");
    }
    let value = host.run("inspect -s c1").json();
    assert!(value[0]["SizeRootFs"].as_u64() > Some(1_000_000), "{value}");
    assert!(host.run("inspect c1").json()[0].get("SizeRw").is_none());
    assert_eq!(
        host.run("inspect --type volume --format {{.Name}} vol")
            .text(),
        "vol"
    );
    assert_eq!(
        host.run("inspect --type network --format {{.Name}} bridge")
            .text(),
        "bridge"
    );
    assert_eq!(
        host.run("container inspect -s -f {{.Name}}{{.SizeRw}} c1")
            .text(),
        "/c16"
    );
    for flag in ["-f", "--format"] {
        let names = host.run(&format!("image inspect {flag} {{{{.RepoTags}}}} busybox"));
        assert!(names.stdout.contains("busybox"), "{names}");
    }
    let some = host.try_run("inspect -f {{.Name}} nope c1").exits(1);
    assert_eq!(some.text(), "/c1");
    some.complains("Error: No such object: nope");
    for (line, text) in [
        (
            "inspect --type bogus c1",
            "unknown type: \"bogus\": must be one of \"container\"",
        ),
        ("inspect --type image c1", "No such image: c1"),
        ("container inspect nope", "Error: No such container: nope"),
        ("image inspect nope", "No such image: nope"),
        ("inspect --type volume nope", "get nope: no such volume"),
        ("inspect --type network nope", "network nope not found"),
    ] {
        let refused = host.try_run(line).exits(1);
        refused.complains(text);
    }
}

fn the_longer_spelling_is_the_same_command() {
    let host = Host::new();
    host.run("container run -d --stop-timeout 0 --name c1 -p 8080:80 busybox sleep 1000");
    assert_eq!(host.run("container exec c1 echo -n x").stdout, "x");
    for list in ["ls", "ps", "list"] {
        assert_eq!(
            host.run(&format!("container {list} -q")).stdout,
            host.run("ps -q").stdout
        );
    }
    assert_eq!(
        host.run("container port c1 80").stdout,
        host.run("port c1 80/tcp").stdout
    );
    assert_eq!(
        host.run("container diff c1").stdout,
        host.run("diff c1").stdout
    );
    host.run("container cp c1:/etc/passwd -");
    host.run("container stop c1");
    host.run("container start c1");
    host.run("container rm -f c1");
    host.run("container create --name c2 busybox true");
    host.run("container rm c2");
    assert_eq!(host.run("image ls -q").stdout, host.run("images -q").stdout);
    let empty = host
        .command(["image", "import", "-", "more"])
        .stdin([0; 1024])
        .run_in(&host.netns);
    empty.ok();
    host.run("image rm more");
    let help = host.run("container ls --help").stdout;
    assert!(
        help.contains("Usage: coracle container ls [OPTIONS]"),
        "{help}"
    );
    host.try_run("container")
        .exits(0)
        .complains("Manage containers");
    host.try_run("container rm")
        .exits(1)
        .complains("coracle container rm");
    host.try_run("container rm nope")
        .exits(1)
        .complains("No such container: nope");
}

fn completions_load_and_complete() {
    let host = Host::new();
    let script = host.run("completion bash").stdout;
    let file = host.folder().join("completion");
    fs::write(&file, script).unwrap();
    let complete = "source \"$1\"; COMP_WORDS=(coracle network cre); COMP_CWORD=2; COMP_LINE='coracle network cre'; \
                    _coracle coracle cre network; echo \"${COMPREPLY[*]}\"";
    let done = Cmd::new("bash")
        .args(["-c", complete, "bash"])
        .arg(&file)
        .run()
        .ok();
    assert_eq!(done.text(), "create");
    assert!(
        host.run("completion zsh")
            .stdout
            .starts_with("#compdef coracle")
    );
    assert!(
        host.run("completion fish")
            .stdout
            .contains("complete -c coracle")
    );
    host.try_run("completion tcsh")
        .exits(125)
        .complains("must be one of bash, zsh, fish");
}

fn every_command_has_a_page_in_the_manual() {
    let host = Host::new();
    let directory = host.folder().join("man");
    host.coracle(["man", directory.to_str().unwrap()]).ok();
    for page in [
        "coracle",
        "coracle-run",
        "coracle-cp",
        "coracle-container-ls",
        "coracle-network-create",
    ] {
        let text = fs::read_to_string(directory.join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".TH") && text.contains(".SH NAME"), "{page}");
    }
    // Rendered without a complaint, where there is a renderer.
    let page = directory.join("coracle-cp.1");
    if Cmd::new("sh").args(["-c", "command -v groff"]).run().code() == 0 {
        let rendered = Cmd::new("groff")
            .args(["-man", "-Tutf8", "-ww"])
            .arg(&page)
            .run()
            .ok();
        assert!(rendered.stdout.contains("coracle-cp(1)"), "{rendered}");
    }
}

/// Each answer is Docker 20.10's.
fn templates_give_what_docker_gives() {
    let host = Host::new();
    host.run("create --name f1 -l k=v busybox sleep 1000");
    for (template, expected) in [
        ("{{json .Config.Cmd}}", "[\"sleep\",\"1000\"]"),
        (
            "{{upper .Name}} {{lower \"AbC\"}} {{title \"ab cd\"}}",
            "/F1 abc Ab Cd",
        ),
        (
            "{{join .Config.Cmd \",\"}} {{json (split .Name \"/\")}}",
            "sleep,1000 [\"\",\"f1\"]",
        ),
        ("{{pad .Name 1 3}}|{{truncate .Name 2}}", " /f1   |/f"),
        (
            "{{slice .Name 1}} {{index .Config.Cmd 1}} {{len .Config.Cmd}}",
            "f1 1000 2",
        ),
        (
            "{{eq .Name \"/f1\"}} {{ne .Name \"/f1\"}} {{lt 1 2}} {{ge 1 2}}",
            "true false true false",
        ),
        (
            "{{range $i, $e := .Config.Cmd}}{{$i}}={{$e}};{{end}}",
            "0=sleep;1=1000;",
        ),
        ("{{range .Config.OnBuild}}x{{else}}none{{end}}", "none"),
        (
            "{{if .State.Running}}up{{else if eq .Name \"/f1\"}}f1{{end}}",
            "f1",
        ),
        ("{{with .Config}}{{.Image}}{{end}}", "busybox"),
        (
            "{{printf \"%-5s|%05d|%q\" \"a\" 42 .Name}}",
            "a    |00042|\"/f1\"",
        ),
        ("{{println .Name}}", "/f1\n"),
        ("{{.Config.Labels}} {{.Args}}", "map[k:v] [1000]"),
    ] {
        let got = host
            .coracle(["inspect", "--format", template, "f1"])
            .ok()
            .stdout;
        assert_eq!(got.strip_suffix('\n'), Some(expected), "{template}");
    }
    for (template, code, text) in [
        ("{{.NoSuch}}", 1, "map has no entry for key \"NoSuch\""),
        ("{{nope .Name}}", 64, "function \"nope\" not defined"),
        ("{{.Name", 64, "unclosed action"),
        ("{{if}}x{{end}}", 64, "missing value for if"),
    ] {
        host.coracle(["inspect", "--format", template, "f1"])
            .exits(code)
            .complains(text);
    }
}

/// Of `HostConfig`, with what Docker has there if nothing was asked for.
const DEFAULTS: &[(&str, &str)] = &[
    ("BlkioWeightDevice", "[]"),
    ("CapAdd", "null"),
    ("ConsoleSize", "[0,0]"),
    ("CpuCount", "0"),
    ("CpuPercent", "0"),
    ("CpuRealtimePeriod", "0"),
    ("CpuRealtimeRuntime", "0"),
    ("DeviceRequests", "null"),
    ("IOMaximumBandwidth", "0"),
    ("IOMaximumIOps", "0"),
    ("Isolation", "\"\""),
    ("KernelMemory", "0"),
    ("KernelMemoryTCP", "0"),
];

fn inspect_has_the_keys_that_scripts_look_for() {
    let host = Host::new();
    host.run("run -d --name c1 busybox sleep 1000");
    let inspect = host.inspect("c1");
    for (name, value) in DEFAULTS {
        let found = inspect["HostConfig"].get(name).map(ToString::to_string);
        assert_eq!(found.as_deref(), Some(*value), "{name}");
    }
    // Nobody is attached to it; and the layer is a folder of the host.
    for stream in ["AttachStdin", "AttachStdout", "AttachStderr"] {
        assert_eq!(inspect["Config"][stream], false, "{stream}");
    }
    host.run("exec c1 touch /new");
    let upper = inspect["GraphDriver"]["Data"]["UpperDir"].as_str().unwrap();
    assert!(fs::exists(format!("{upper}/new")).unwrap());
    host.run("create --name c2 -i -a stdout -w /a/../b/ --network container:c1 busybox pwd");
    let joined = host.inspect("c2");
    assert_eq!(joined["Config"]["AttachStdin"], true);
    assert_eq!(joined["Config"]["AttachStdout"], true);
    assert_eq!(joined["Config"]["AttachStderr"], false);
    assert_eq!(joined["Config"]["WorkingDir"], "/b");
    // By ID: the other one may be renamed.
    let id = inspect["Id"].as_str().unwrap();
    assert_eq!(
        joined["HostConfig"]["NetworkMode"],
        format!("container:{id}")
    );
    host.run("rename c1 c3");
    host.run("start -a c2").says("/b");
    // Templates find what is left out of the list empty.
    for (template, expected) in [
        (
            "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}",
            "none",
        ),
        ("[{{index .Config.Labels \"nope\"}}]", "[]"),
        ("{{if .HostConfig.Tmpfs}}some{{else}}none{{end}}", "none"),
        ("{{if .HostConfig.Init}}yes{{else}}no{{end}}", "no"),
    ] {
        let found = host.coracle(["inspect", "-f", template, "c3"]).ok();
        assert_eq!(found.text(), expected, "{template}");
    }
    let bridge = host.run("network inspect bridge").json()[0]["Options"].take();
    for (name, value) in [("bridge.enable_icc", "true"), ("driver.mtu", "1500")] {
        assert_eq!(
            bridge[format!("com.docker.network.{name}")],
            value,
            "{name}"
        );
    }
}
