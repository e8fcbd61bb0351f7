//! Four small images that share layers: quick to pull, and with what makes a layer hard (hard links, whiteouts, an opaque directory,
//! directories that a tar leaves out).

use std::path::PathBuf;

use crate::oci::{self, Config, Image};
use crate::{Host, Registry, images};

/// Some hundred files over busybox, some of them with two names; one file of it is taken away.
const SHARED: &str = r#"
mkdir -p usr/lib/many/deep opq etc
for i in $(seq 200); do head -c $((i * 17)) /dev/urandom >usr/lib/many/$i; done
for i in $(seq 50); do ln usr/lib/many/$i usr/lib/many/deep/link-$i; ln -s ../$i usr/lib/many/deep/symbolic-$i; done
head -c 400000 /dev/urandom >usr/lib/large
truncate -s 1M usr/lib/hole
echo below >opq/below
mkdir -p usr/bin; : >usr/bin/.wh.notes.txt
"#;

/// Over that: other whiteouts, and an opaque directory.
const OVER: &str = r#"
mkdir -p opq usr/lib/many
: >opq/.wh..wh..opq
echo over >opq/over
for i in $(seq 60 80); do : >usr/lib/many/.wh.$i; done
head -c 250000 /dev/urandom >over
"#;

/// The names of the images: `a` and `b` differ in their last layer, `c` has one of its own over busybox, `d` is the highest.
pub const NAMES: [&str; 4] = ["a:1", "b:1", "c:1", "d:1"];

/// Pushes the images; their names with the registry's.
#[track_caller]
pub fn push(host: &Host, registry: &Registry<'_>) -> Vec<String> {
    let own = |name: &str| {
        let script = format!(
            "mkdir -p {name}; for i in $(seq 50); do head -c 3000 /dev/urandom >{name}/$i; done; head -c 200000 /dev/urandom >{name}/large"
        );
        images::layer(host, name, &script)
    };
    let (base, shared, over) = (
        images::busybox_tar(),
        images::layer(host, "shared", SHARED),
        images::layer(host, "over", OVER),
    );
    let chains: [Vec<PathBuf>; 4] = [
        vec![base.clone(), shared.clone(), own("a")],
        vec![base.clone(), shared.clone(), own("b")],
        vec![base.clone(), own("c")],
        vec![base, shared, over, own("d")],
    ];
    let config = Config {
        cmd: &["true"],
        ..Config::default()
    };
    for (name, chain) in NAMES.iter().zip(chains) {
        let layout = host.folder().join(format!("layout-{}", &name[..1]));
        oci::write_layout(&layout, "1", &[Image::of(&chain, config)]);
        registry.push(&layout, "1", name);
    }
    NAMES.map(|name| registry.image(name)).to_vec()
}
