//! Import, names, look-up and removal, with Docker's rules.

mod common;

use common::*;
use image::archive::import;
use image::{Error, ErrorKind, Image, Reference, Removal, store, sweep};

fn import_file(store: &mut Store, content: &str, name: Option<&str>) -> Image {
    let tar = Tar::new().file("f", 0o644, content).finish();
    let name = name.map(|n| Reference::parse(n).unwrap());
    let root = store.path().to_owned();
    import(&mut store.conn, &root, &mut &*tar, name.as_ref(), &[], None).unwrap()
}

fn remove(
    store: &mut Store,
    name: &str,
    force: bool,
    in_use: &[(String, String)],
) -> Result<Vec<Removal>, Error> {
    let root = store.path().to_owned();
    store::remove(&mut store.conn, &root, name, force, in_use)
}

#[test]
fn an_import_is_an_image_with_what_the_changes_say() {
    let mut store = Store::new();
    let tar = gzip(&Tar::new().file("bin", 0o755, "x").finish());
    let changes = ["CMD [\"/bin\"]", "ENV A=b", "EXPOSE 80"].map(String::from);
    let name = Reference::parse("mine").unwrap();
    let root = store.path().to_owned();
    let image = import(
        &mut store.conn,
        &root,
        &mut &*tar,
        Some(&name),
        &changes,
        Some("why"),
    )
    .unwrap();
    let config = image.config.config().as_ref().unwrap();
    assert_eq!(config.cmd().as_deref(), Some(&["/bin".to_owned()][..]));
    assert_eq!(config.env().as_deref(), Some(&["A=b".to_owned()][..]));
    assert_eq!(image.names, ["mine:latest"]);
    assert!(image.layers[0].is_absolute() && image.layers[0].join("bin").is_file());
    let listed = store::list(&store.conn).unwrap();
    assert_eq!(
        (
            listed[0].repository.as_str(),
            listed[0].tag.as_str(),
            listed[0].size
        ),
        ("mine", "latest", 1)
    );
}

#[test]
fn bad_archives_and_changes_leave_nothing() {
    let mut store = Store::new();
    let root = store.path().to_owned();
    let good = Tar::new().file("f", 0o644, "x").finish();
    let mut cut = gzip(&good);
    cut.truncate(cut.len() - 5);
    for (tar, change) in [
        (&b""[..], "USER x"),
        (b"BZh91AY", "USER x"),
        (b"not a tar", "USER x"),
        (&cut, "USER x"),
        (&good, "RUN x"),
    ] {
        let error = import(
            &mut store.conn,
            &root,
            &mut &*tar,
            None,
            &[change.to_owned()],
            None,
        )
        .unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Untrusted),
            "{error}"
        );
        store.assert_empty();
    }
}

#[test]
fn images_are_found_by_name_id_and_prefix() {
    let mut store = Store::new();
    let image = import_file(&mut store, "1", Some("me/app:1"));
    let find = |name: &str| {
        store::find(&store.conn, store.path(), name)
            .unwrap()
            .map(|i| i.id)
    };
    for name in [
        "me/app:1",
        "docker.io/me/app:1",
        &image.id,
        &image.id[7..],
        &image.id[7..19],
        &image.id[..19],
    ] {
        assert_eq!(find(name).as_deref(), Some(image.id.as_str()), "{name}");
    }
    for name in ["me/app", "app:1", "", "xyz", "sha256:", "%", "UPPER"] {
        assert_eq!(find(name), None, "{name}");
    }
}

#[test]
fn an_ambiguous_prefix_is_an_error() {
    let mut store = Store::new();
    // 17 images share a first digit, whatever their digests are.
    for i in 0..17 {
        import_file(&mut store, &i.to_string(), None);
    }
    let list = store::list(&store.conn).unwrap();
    let mut firsts: Vec<_> = list.iter().map(|i| i.id[7..8].to_owned()).collect();
    firsts.sort();
    let shared = firsts.windows(2).find(|w| w[0] == w[1]).unwrap()[0].clone();
    let error = store::find(&store.conn, store.path(), &shared).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn removal_untags_until_the_last_name() {
    let mut store = Store::new();
    let image = import_file(&mut store, "1", Some("a"));
    let other = Reference::parse("b").unwrap();
    store::tag(&store.conn, &image.id, &other).unwrap();
    let id = &image.id;
    let error = remove(&mut store, id, false, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
            &id[7..19]
        )
    );
    assert_eq!(
        remove(&mut store, "a", false, &[]).unwrap(),
        [Removal::Untagged("a:latest".into())]
    );
    let layer = image.config.rootfs().diff_ids()[0].clone();
    assert_eq!(
        remove(&mut store, "b", false, &[]).unwrap(),
        [
            Removal::Untagged("b:latest".into()),
            Removal::Deleted(id.clone()),
            Removal::Deleted(layer)
        ]
    );
    store.assert_empty();
    let error = remove(&mut store, "b", false, &[]).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::NotFound, "No such image: b")
    );
}

#[test]
fn an_image_in_use_is_a_conflict_in_dockers_words() {
    let mut store = Store::new();
    let image = import_file(&mut store, "1", Some("a"));
    let in_use = [(image.id.clone(), "0123456789ab".to_owned())];
    let error = remove(&mut store, "a", false, &in_use).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let short = &image.id[7..19];
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to remove repository reference \"a\" (must force) - container 0123456789ab is using its referenced image {short}"
        )
    );
    assert!(remove(&mut store, &image.id, false, &in_use).is_err());
    // Force takes the name; the container keeps its layers.
    assert_eq!(
        remove(&mut store, "a", true, &in_use).unwrap(),
        [Removal::Untagged("a:latest".into())]
    );
    assert!(image.layers[0].is_dir());
    let listed = store::list(&store.conn).unwrap();
    assert_eq!(
        (listed[0].repository.as_str(), listed[0].tag.as_str()),
        ("<none>", "<none>")
    );
    let error = remove(&mut store, &image.id, true, &in_use).unwrap_err();
    assert!(error.to_string().contains("(cannot be forced)"), "{error}");
    remove(&mut store, &image.id, false, &[]).unwrap();
    store.assert_empty();
}

#[test]
fn a_sweep_takes_what_has_no_row_and_keeps_the_rest() {
    let mut store = Store::new();
    let image = import_file(&mut store, "1", Some("a"));
    let root = store.path().to_owned();
    for rubbish in [
        "layers/0123456789abcdef0123456789abcdef/x",
        "layers/.staging/dead/0/x",
        &format!("images/{}", "ab".repeat(32)),
    ] {
        std::fs::create_dir_all(root.join(rubbish)).unwrap();
    }
    std::fs::write(root.join("layers/1123456789abcdef.recipe"), "").unwrap();
    sweep(&mut store.conn, &root).unwrap();
    assert_eq!(store.left_overs().len(), 3, "{:?}", store.left_overs());
    assert!(
        store::find(&store.conn, &root, "a")
            .unwrap()
            .is_some_and(|i| i.id == image.id)
    );
}

#[test]
fn a_missing_layer_is_named_and_an_import_of_it_mends_it() {
    let mut store = Store::new();
    let image = import_file(&mut store, "1", Some("a"));
    std::fs::remove_dir_all(&image.layers[0]).unwrap();
    let error = store::find(&store.conn, store.path(), "a").unwrap_err();
    assert!(matches!(error, Error::LayerMissing { .. }), "{error}");
    import_file(&mut store, "1", Some("a"));
    assert!(
        store::find(&store.conn, store.path(), "a")
            .unwrap()
            .is_some()
    );
}
