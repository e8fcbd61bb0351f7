//! Builds `init/main.rs`, the first process of containers with `--init`, as a small static program, and puts it where the
//! crate embeds it from. Needs what the crate itself needs: rustc and a C compiler to link by.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "init/main.rs";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let wanted = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let out = PathBuf::from(wanted("OUT_DIR")).join("coracle-init");
    let mut rustc = Command::new(wanted("RUSTC"));
    rustc
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "bin",
            "--crate-name",
            "coracle_init",
        ])
        .args(["--target", &wanted("TARGET")])
        // The same for debug and release: nothing of it is worth a debugger, and each start may copy it.
        .args([
            "-C",
            "panic=abort",
            "-C",
            "opt-level=z",
            "-C",
            "strip=symbols",
            "-C",
            "overflow-checks=off",
        ])
        .args([
            "-C",
            "relocation-model=static",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "codegen-units=1",
        ])
        .args([
            "-C",
            "link-arg=-nostartfiles",
            "-C",
            "link-arg=-nostdlib",
            "-C",
            "link-arg=-static",
        ])
        .args(["-C", "link-arg=-Wl,--build-id=none"])
        .arg("-o")
        .arg(&out)
        .arg(SOURCE);
    if wanted("TARGET").contains("musl") {
        // Its own start files would be linked in by name.
        rustc.args(["-C", "link-self-contained=no"]);
    }
    // Where another linker is configured for the target, as for a build for another machine.
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    let status = rustc
        .status()
        .unwrap_or_else(|e| panic!("cannot run rustc: {e}"));
    assert!(status.success(), "{SOURCE} does not build: {status}");
}
