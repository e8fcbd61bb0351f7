//! Archives and compressed streams that are damaged, lie about sizes, or grow without end.

use harness::{Netns, Tape, tape};
use tar::{EntryType, Header};

use super::image::{GZIP, Image, Layer, ZSTD, reference, sha256};
use super::layers::ADVICE;
use super::machine::{Machine, merged};
use super::{Row, row};

pub fn rows() -> Vec<Row> {
    let big = || Tape::new().file("big", "x".repeat(100_000));
    let mut rows = vec![
        tar(
            "cut-in-a-file",
            big().unfinished()[..50_000].to_vec(),
            &["big", "it ends in the middle of a file"],
        ),
        tar(
            "cut-in-a-header",
            big().unfinished()[..300].to_vec(),
            &["it ends in the middle of a block"],
        ),
        tar(
            "wrong-checksum",
            damaged(big().finish(), 0),
            &["the checksum of a header is wrong"],
        ),
        tar(
            "not-a-tar",
            b"<html>this is no archive</html>".repeat(100),
            &["malformed"],
        ),
        tar(
            "a-second-file-cut",
            Tape::new()
                .file("first", "1")
                .raw(&big().unfinished()[..2000])
                .unfinished(),
            &["big"],
        ),
        sizes(
            "size-of-2^63",
            [0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0],
            "is not a number",
        ),
        sizes(
            "size-of-2^63-1",
            [0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255],
            "f: ",
        ),
        sizes(
            "size-of-2^95",
            [0x80, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
            "is not a number",
        ),
        sizes("negative-size", [255; 12], "a size of -1 bytes"),
        sizes("size-of-no-digits", *b"0000000648\0\0", "is not a number"),
        sizes("size-with-a-sign", *b"-0000000001\0", "is not a number"),
        row("pax-size-over-the-headers", |netns| {
            // Who believes the header takes the data for entries, and sees another image.
            let inner = Tape::new().file("smuggled", "").unfinished();
            let header = Tape::header(EntryType::Regular, "f", 0o644);
            let tape = Tape::new().pax(&[("size", inner.len().to_string().as_bytes())]);
            let tar = tape.as_it_is(header, &inner).file("after", "").finish();
            let names = pulled(netns, Layer::gzip(&tar));
            assert_eq!(names, ["after", "f"]);
        }),
        row("pax-size-under-the-headers", |netns| {
            let inner = Tape::new().file("seen", "").unfinished();
            let mut header = Tape::header(EntryType::Regular, "f", 0o644);
            header.set_size(inner.len() as u64);
            let tar = Tape::new()
                .pax(&[("size", b"0")])
                .as_it_is(header, &inner)
                .finish();
            assert_eq!(pulled(netns, Layer::gzip(&tar)), ["f", "seen"]);
        }),
        row("size-of-a-link", |netns| {
            // Links have no data, whatever their size says.
            let mut header = Tape::header(EntryType::Symlink, "l", 0o777);
            header.as_old_mut().linkname[0] = b'x';
            header.set_size(1 << 20);
            let tar = Tape::new().as_it_is(header, b"").file("after", "").finish();
            assert_eq!(pulled(netns, Layer::gzip(&tar)), ["after", "l"]);
        }),
        tar(
            "gnu-long-name-of-1-mb",
            Tape::new()
                .long_name(&[b'n'; 1 << 20])
                .file("f", "")
                .finish(),
            &["over the limit of 4096"],
        ),
        tar(
            "pax-name-of-1-mb",
            Tape::new()
                .pax(&[("path", &[b'n'; 1 << 20])])
                .file("f", "")
                .finish(),
            &["over the limit of 1048576"],
        ),
        tar(
            "pax-name-of-5-kb",
            Tape::new()
                .pax(&[("path", &[b'n'; 5000])])
                .file("f", "")
                .finish(),
            &["nnnn", "longer than any path"],
        ),
        tar(
            "pax-link-of-5-kb",
            Tape::new()
                .pax(&[("linkpath", &[b'n'; 5000])])
                .symlink("l", "x")
                .finish(),
            &["longer than any path"],
        ),
        tar(
            "a-name-of-300-bytes",
            Tape::new()
                .pax(&[("path", &[b'n'; 300])])
                .file("f", "")
                .finish(),
            &["nnnn", "a name of 300 bytes is longer than Linux allows"],
        ),
        tar(
            "pax-of-2-mb",
            Tape::new()
                .pax(&[("comment", &[b'n'; 2 << 20])])
                .file("f", "")
                .finish(),
            &["over the limit of 1048576"],
        ),
        tar(
            "owner-of-nobody",
            Tape::new()
                .pax(&[("uid", b"4294967295")])
                .file("f", "")
                .finish(),
            &["f: an owner that Linux does not have"],
        ),
        tar(
            "unknown-kind",
            Tape::new()
                .add(Tape::header(EntryType::new(b'Q'), "q", 0o644), b"")
                .finish(),
            &["q: unknown entry type 'Q'"],
        ),
        tar(
            "nul-in-a-name",
            Tape::new().pax(&[("path", b"a\0b")]).file("f", "").finish(),
            &["bad PAX record"],
        ),
        tar(
            "sparse-map-past-the-end",
            sparse(&[
                ("GNU.sparse.map", b"0,9999999"),
                ("GNU.sparse.size", b"512"),
            ]),
            &["a sparse map that does not fit"],
        ),
        tar(
            "sparse-map-of-half-a-piece",
            sparse(&[
                ("GNU.sparse.map", b"0,512,600"),
                ("GNU.sparse.size", b"9999"),
            ]),
            &["half a piece"],
        ),
        tar(
            "sparse-map-without-a-size",
            sparse(&[("GNU.sparse.map", b"0,512")]),
            &["a sparse file without a size"],
        ),
        tar(
            "sparse-map-backwards",
            sparse(&[
                ("GNU.sparse.map", b"500,256,0,256"),
                ("GNU.sparse.size", b"9999"),
            ]),
            &["a sparse map that does not fit"],
        ),
        row("zstd-of-some-megabytes", |netns| {
            // In pieces that do not fit our buffers.
            let tar = Tape::new()
                .file("big", noise(3_000_000))
                .file("zeros", vec![0; 3_000_000])
                .finish();
            let blob = tar.chunks(777_777).flat_map(tape::zstd).collect();
            let layer = Layer {
                blob,
                media_type: ZSTD,
                diff_id: sha256(&tar),
            };
            assert_eq!(pulled(netns, layer), ["big", "zeros"]);
        }),
        row("gzip-of-some-megabytes", |netns| {
            let tar = Tape::new()
                .file("big", noise(3_000_000))
                .file("zeros", vec![0; 3_000_000])
                .finish();
            let blob = tar.chunks(777_777).flat_map(tape::gzip).collect();
            let layer = Layer {
                blob,
                media_type: GZIP,
                diff_id: sha256(&tar),
            };
            assert_eq!(pulled(netns, layer), ["big", "zeros"]);
        }),
        row("holes-without-end", |netns| {
            let size: &[u8] = b"9223372036854775807";
            let mut tape = Tape::new();
            for name in ["a", "b", "c"] {
                tape = tape
                    .pax(&[("GNU.sparse.map", b"0,0"), ("GNU.sparse.size", size)])
                    .file(name, "");
            }
            refuse(netns, Layer::gzip(&tape.finish()), &["a"]);
        }),
    ];
    let malformed: [(&'static str, &[u8]); 10] = [
        ("pax-without-newline", b"6 a=b"),
        ("pax-length-too-long", b"99 a=b\n"),
        ("pax-length-of-nothing", b"0 a=b\n"),
        ("pax-length-negative", b"-6 a=b\n"),
        ("pax-length-overflows", b"99999999999999999999999999 a=b\n"),
        ("pax-length-of-2^64", b"18446744073709551616 a=b\n"),
        ("pax-without-equals", b"5 ab\n"),
        ("pax-without-key", b"5 =b\n"),
        ("pax-of-nul", b"\0\0\0\0\0\0"),
        ("pax-size-negative", b"11 size=-1\n"),
    ];
    rows.extend(malformed.map(|(name, records)| {
        let tar = Tape::new().pax_bytes(records).file("f", "").finish();
        self::tar(name, tar, &["malformed", "bad PAX record"])
    }));
    rows.extend(streams());
    rows.extend(bombs());
    rows
}

/// A compressed blob that is not what it should be.
fn streams() -> Vec<Row> {
    let tar = || Tape::new().file("big", noise(200_000)).finish();
    let mut wrong_crc = tape::gzip(&tar());
    let end = wrong_crc.len();
    wrong_crc[end - 6] ^= 1;
    let mut wrong_length = tape::gzip(&tar());
    wrong_length[end - 1] ^= 1;
    let mut wrong_frame = tape::zstd(&tar());
    let middle = wrong_frame.len() / 2;
    wrong_frame[middle] ^= 0xff;
    let cut = |blob: Vec<u8>| blob[..blob.len() - 5000].to_vec();
    let with = |blob: Vec<u8>, rest: &[u8]| [&blob[..], rest].concat();
    // 2 GiB of window, a last block of nothing.
    let huge_window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
    vec![
        packed(
            "gzip-cut",
            cut(tape::gzip(&tar())),
            GZIP,
            &["reading the tar"],
        ),
        packed("gzip-wrong-crc", wrong_crc, GZIP, &["reading the tar"]),
        packed(
            "gzip-wrong-length",
            wrong_length,
            GZIP,
            &["reading the tar"],
        ),
        packed(
            "gzip-garbage-after",
            with(tape::gzip(&tar()), b"garbage"),
            GZIP,
            &["reading the tar"],
        ),
        packed("gzip-that-is-none", tar(), GZIP, &["reading the tar"]),
        packed(
            "gzip-that-is-zstd",
            tape::zstd(&tar()),
            GZIP,
            &["reading the tar"],
        ),
        packed("gzip-of-nothing", Vec::new(), GZIP, &[]),
        packed(
            "zstd-cut",
            cut(tape::zstd(&tar())),
            ZSTD,
            &["reading the tar"],
        ),
        packed(
            "zstd-damaged",
            wrong_frame,
            ZSTD,
            &["its tar has the digest", "reading the tar"],
        ),
        packed(
            "zstd-garbage-after",
            with(tape::zstd(&tar()), b"garbage"),
            ZSTD,
            &["reading the tar"],
        ),
        packed(
            "zstd-that-is-gzip",
            tape::gzip(&tar()),
            ZSTD,
            &["reading the tar"],
        ),
        packed(
            "zstd-huge-window",
            huge_window.to_vec(),
            ZSTD,
            &["reading the tar", "memory"],
        ),
    ]
}

/// Small blobs that unpack to far too much.
fn bombs() -> Vec<Row> {
    const MEMBER: usize = 64 << 20;
    // 4 GiB and some, after the end of a good archive: nothing of it would be written, but all read.
    let zeros = || vec![0; MEMBER];
    let start = || Tape::new().file("f", "").finish();
    vec![
        row("gzip-bomb", move |netns| {
            let blob = [tape::gzip(&start()), tape::gzip(&zeros()).repeat(65)].concat();
            refuse(
                netns,
                raw(blob, GZIP),
                &["it unpacks to more than 4294967296 bytes"],
            );
        }),
        row("zstd-bomb", move |netns| {
            let blob = [tape::zstd(&start()), tape::zstd(&zeros()).repeat(65)].concat();
            refuse(
                netns,
                raw(blob, ZSTD),
                &["it unpacks to more than 4294967296 bytes"],
            );
        }),
        row("bomb-of-one-file", |netns| {
            // Its header says so, before a byte of it is written.
            let mut header = Tape::header(EntryType::Regular, "zeros", 0o644);
            header.set_size(1 << 40);
            let tar = Tape::new().as_it_is(header, &[0; 4096]).unfinished();
            refuse(
                netns,
                raw(tape::gzip(&tar), GZIP),
                &["zeros", "1099511627776 bytes"],
            );
        }),
        row("ten-million-entries", |netns| {
            let entries = Tape::new().dir("d/", 0o755).unfinished().repeat(10_000);
            let blob = tape::zstd(&entries).repeat(1_000);
            refuse(netns, raw(blob, ZSTD), &["entries"]);
        }),
        row("ten-million-records", |netns| {
            let header: Header = Tape::header(EntryType::XGlobalHeader, "g", 0o644);
            let entries = Tape::new().add(header, b"").unfinished().repeat(10_000);
            let blob = tape::zstd(&entries).repeat(1_000);
            refuse(netns, raw(blob, ZSTD), &["entries"]);
        }),
    ]
}

/// Bytes that do not compress, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn damaged(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] ^= 1;
    bytes
}

fn sparse(records: &[(&str, &[u8])]) -> Vec<u8> {
    Tape::new().pax(records).file("s", [b'x'; 512]).finish()
}

/// A blob of which nobody knows what it unpacks to.
fn raw(blob: Vec<u8>, media_type: &'static str) -> Layer {
    Layer {
        blob,
        media_type,
        diff_id: sha256(b""),
    }
}

#[track_caller]
fn refuse(netns: &'static Netns, layer: Layer, says: &[&str]) {
    let short = layer.short();
    let mock = Image::of(vec![layer]).files().serve(netns);
    let says: Vec<&str> = says
        .iter()
        .copied()
        .chain([short.as_str(), ADVICE])
        .collect();
    Machine::new(netns).refuses(&reference(&mock), &says);
}

/// What is to be seen of an image of this layer.
#[track_caller]
fn pulled(netns: &'static Netns, layer: Layer) -> Vec<String> {
    let mock = Image::of(vec![layer]).files().serve(netns);
    let machine = Machine::new(netns);
    merged(&machine.pulls(&reference(&mock)))
        .into_keys()
        .collect()
}

/// A tar that is refused, packed and plain.
fn tar(name: &'static str, tar: Vec<u8>, says: &'static [&'static str]) -> Row {
    row(name, move |netns| {
        refuse(netns, Layer::gzip(&tar), says);
        refuse(netns, Layer::plain(tar), says);
    })
}

/// A file whose size field is this.
fn sizes(name: &'static str, field: [u8; 12], why: &'static str) -> Row {
    let mut header = Tape::header(EntryType::Regular, "f", 0o644);
    header.as_old_mut().size = field;
    let tar = Tape::new().as_it_is(header, b"data").finish();
    row(name, move |netns| refuse(netns, Layer::gzip(&tar), &[why]))
}

fn packed(
    name: &'static str,
    blob: Vec<u8>,
    media_type: &'static str,
    any: &'static [&'static str],
) -> Row {
    row(name, move |netns| {
        let layer = raw(blob, media_type);
        let short = layer.short();
        let mock = Image::of(vec![layer]).files().serve(netns);
        let output = Machine::new(netns).refuses(&reference(&mock), &[&short, ADVICE]);
        let said = any.is_empty() || any.iter().any(|text| output.stderr.contains(text));
        assert!(said, "none of {any:?}: {output}");
    })
}
