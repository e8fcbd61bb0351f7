//! Both sides of a log together, on files in a folder of the test's own.

use std::path::Path;

use super::*;
use crate::request::{LogDriver, LogRequest};

fn options(driver: LogDriver, options: &[(&str, &str)]) -> Options {
    let options = options.iter();
    let options = options.map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    check(&LogRequest {
        driver,
        options: options.collect(),
    })
    .unwrap()
}

fn json() -> Options {
    options(LogDriver::JsonFile, &[])
}

fn writer(folder: &Path, options: &Options) -> Writer {
    Writer::open(folder, options, &[]).unwrap().unwrap()
}

fn printed(folder: &Path, options: &Options, wanted: &Wanted) -> (Vec<u8>, Vec<u8>) {
    let format = options.format.unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    read(
        &folder.join(format.file_name()),
        format,
        wanted,
        None,
        &mut out,
        &mut err,
    )
    .unwrap();
    (out, err)
}

fn tail(count: usize) -> Wanted {
    Wanted {
        tail: Some(count),
        ..Wanted::default()
    }
}

fn both(check: impl Fn(&Path, &Options)) {
    for driver in [LogDriver::JsonFile, LogDriver::Local] {
        let folder = tempfile::tempdir().unwrap();
        check(folder.path(), &options(driver, &[]));
    }
}

#[test]
fn lines_come_back_in_order_on_their_own_streams() {
    both(|folder, options| {
        let mut writer = writer(folder, options);
        writer.write(Stream::Stdout, b"one\ntw");
        writer.write(Stream::Stderr, b"oops\n");
        writer.write(Stream::Stdout, b"o\nthree");
        writer.finish();
        let all = printed(folder, options, &Wanted::default());
        assert_eq!(all, (b"one\ntwo\nthree".into(), b"oops\n".into()));
        assert_eq!(printed(folder, options, &tail(1)).0, b"three");
        assert_eq!(printed(folder, options, &tail(2)).0, b"two\nthree");
        assert_eq!(printed(folder, options, &tail(100)), all);
        assert_eq!(printed(folder, options, &tail(0)), (vec![], vec![]));
    });
}

#[test]
fn any_bytes_and_any_length_of_line_come_back() {
    both(|folder, options| {
        let mut bytes: Vec<u8> = (0..=255).collect();
        bytes.extend("\u{fffd}é\u{2028}\"\\\r\t\n".bytes());
        // Characters of two bytes, of which one would be cut by a piece of an odd length.
        bytes.extend("x".bytes().chain("é".repeat(40_000).bytes()).chain([b'\n']));
        bytes.extend([0; 50_000]);
        bytes.extend(b"\n\n\xff\xfe\n end");
        for chunk in [1000, 32 * 1024, 100_000] {
            let folder = folder.join(chunk.to_string());
            std::fs::create_dir(&folder).unwrap();
            let mut writer = writer(&folder, options);
            for chunk in bytes.chunks(chunk) {
                writer.write(Stream::Stdout, chunk);
            }
            writer.finish();
            assert!(printed(&folder, options, &Wanted::default()).0 == bytes);
        }
    });
}

#[test]
fn the_file_is_dockers_json() {
    let folder = tempfile::tempdir().unwrap();
    let attributes = [("tag".to_owned(), "a\"b".to_owned())];
    let mut writer = Writer::open(folder.path(), &json(), &attributes)
        .unwrap()
        .unwrap();
    writer.write(Stream::Stderr, b"q\"\x01\xff\n");
    let text = std::fs::read_to_string(folder.path().join("json.log")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record["log"], "q\"\u{1}\u{fffd}\n");
    assert_eq!(record["stream"], "stderr");
    assert_eq!(record["attrs"]["tag"], "a\"b");
    let wanted = Wanted {
        details: true,
        ..Wanted::default()
    };
    let (_, err) = printed(folder.path(), &json(), &wanted);
    assert_eq!(err, b"tag=a%22b q\"\x01\xff\n");
}

#[test]
fn a_line_without_end_is_written_in_pieces_and_stamped_once() {
    both(|folder, options| {
        let mut writer = writer(folder, options);
        writer.write(Stream::Stdout, "x".repeat(3 * LONGEST_PIECE + 5).as_bytes());
        writer.write(Stream::Stdout, b"\n");
        let wanted = Wanted {
            timestamps: true,
            ..Wanted::default()
        };
        let (out, _) = printed(folder, options, &wanted);
        let text = String::from_utf8(out).unwrap();
        let (stamp, rest) = text.split_once(' ').unwrap();
        assert!(Stamp::parse(stamp).is_some(), "{stamp}");
        assert_eq!(rest.trim_end(), "x".repeat(3 * LONGEST_PIECE + 5));
    });
}

#[test]
fn rotated_files_are_read_as_one_log_and_the_oldest_go() {
    for (driver, compress) in [
        (LogDriver::JsonFile, "false"),
        (LogDriver::JsonFile, "true"),
        (LogDriver::Local, "false"),
        (LogDriver::Local, "true"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let options = options(
            driver,
            &[
                ("max-size", "2k"),
                ("max-file", "3"),
                ("compress", compress),
            ],
        );
        let mut log = writer(folder.path(), &options);
        for number in 0..500 {
            log.write(Stream::Stdout, format!("line {number}\n").as_bytes());
            if number == 300 {
                // As after a restart.
                log.finish();
                log = writer(folder.path(), &options);
            }
        }
        log.finish();
        let names = std::fs::read_dir(folder.path()).unwrap().flatten();
        let names: Vec<_> = names
            .map(|e| e.file_name().into_string().unwrap())
            .collect();
        assert_eq!(names.len(), 3, "{names:?}");
        let packed = names.iter().filter(|name| name.ends_with(".gz")).count();
        assert_eq!(packed, if compress == "true" { 2 } else { 0 }, "{names:?}");
        let all = printed(folder.path(), &options, &Wanted::default()).0;
        let all = String::from_utf8(all).unwrap();
        let first: usize = all.lines().next().unwrap()[5..].parse().unwrap();
        let expected: String = (first..500).map(|n| format!("line {n}\n")).collect();
        assert!(first > 300, "{first}");
        assert_eq!(all, expected);
        for count in [1, 30, 500 - first] {
            let expected: String = (500 - count..500).map(|n| format!("line {n}\n")).collect();
            let found = printed(folder.path(), &options, &tail(count)).0;
            assert_eq!(String::from_utf8(found).unwrap(), expected, "{count}");
        }
    }
}

#[test]
fn a_record_that_a_killed_writer_left_torn_disturbs_no_other() {
    both(|folder, options| {
        let path = folder.join(options.format.unwrap().file_name());
        let mut log = writer(folder, options);
        log.write(Stream::Stdout, b"one\ntwo\n");
        let length = std::fs::metadata(&path).unwrap().len();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(length - 3).unwrap();
        assert_eq!(printed(folder, options, &Wanted::default()).0, b"one\n");
        let mut log = writer(folder, options);
        log.write(Stream::Stdout, b"three\n");
        assert_eq!(
            printed(folder, options, &Wanted::default()).0,
            b"one\nthree\n"
        );
    });
}

#[test]
fn since_and_until_cut() {
    both(|folder, options| {
        let mut log = writer(folder, options);
        log.write(Stream::Stdout, b"early\n");
        std::thread::sleep(std::time::Duration::from_millis(2));
        let between = Stamp::now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        log.write(Stream::Stdout, b"late\n");
        let since = Wanted {
            since: Some(between),
            ..Wanted::default()
        };
        assert_eq!(printed(folder, options, &since).0, b"late\n");
        let until = Wanted {
            until: Some(between),
            ..Wanted::default()
        };
        assert_eq!(printed(folder, options, &until).0, b"early\n");
    });
}

#[test]
fn following_goes_across_rotations_and_ends_when_the_writer_has_gone() {
    for driver in [LogDriver::JsonFile, LogDriver::Local] {
        let folder = tempfile::tempdir().unwrap();
        let options = options(driver, &[("max-size", "1k"), ("max-file", "200")]);
        let mut log = writer(folder.path(), &options);
        log.write(Stream::Stdout, b"begin\n");
        let (ended, alive) = std::io::pipe().unwrap();
        let follower = std::thread::spawn({
            let path = folder.path().join(options.format.unwrap().file_name());
            move || {
                let wanted = Wanted {
                    follow: true,
                    ..Wanted::default()
                };
                let (mut out, mut err) = (Vec::new(), Vec::new());
                let format = options.format.unwrap();
                read(
                    &path,
                    format,
                    &wanted,
                    Some(&ended.into()),
                    &mut out,
                    &mut err,
                )
                .unwrap();
                String::from_utf8(out).unwrap()
            }
        });
        let mut expected = "begin\n".to_owned();
        for number in 0..2000 {
            let line = format!("line {number}\n");
            log.write(Stream::Stdout, line.as_bytes());
            expected += &line;
        }
        log.finish();
        drop(alive);
        assert!(follower.join().unwrap() == expected);
    }
}
