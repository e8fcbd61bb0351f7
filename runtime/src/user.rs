//! `user[:group]` looked up in a container's own /etc/passwd and /etc/group: as text, never through NSS.
//!
//! NSS would load the container's libraries into a process of the host. The files belong to whoever made the image, so
//! they are read with a cap, and only if they are regular files inside the root filesystem.

use std::io::{self, Read};
use std::path::Path;

use crate::bundle::inside::Inside;
use crate::error::Error;

/// Who the program runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups: those that list the user in /etc/group, where no group was written.
    pub groups: Vec<u32>,
    /// From /etc/passwd, else `/` ("/root" for 0 if the file has it).
    pub home: String,
}

/// A passwd file of an image has some dozens of lines; one of a whole university has a few megabytes.
const MAX_SIZE: u64 = 16 << 20;
/// Docker's bound, and runc's.
const MAX_ID: i64 = i32::MAX as i64;

/// Looks `spec` up under `rootfs`; both files are read with symlinks resolved inside `rootfs` and a cap on size.
/// An empty `spec` is root. Errors as Docker's: `unable to find user x: no matching entries in passwd file`.
/// `more` are groups to be in besides (`--group-add`), names or numbers.
pub fn look_up(rootfs: &Path, spec: &str, more: &[String]) -> Result<User, Error> {
    let open = |path: &'static str| {
        read(rootfs, path).map_err(|source| Error::FileSystem {
            operation: "read",
            path: rootfs.join(path.trim_start_matches('/')),
            source,
        })
    };
    let groups = open("/etc/group")?;
    let mut user = find(spec, &open("/etc/passwd")?, &groups)?;
    for word in more {
        let gid = find_group(word, &groups).map_err(|error| match error {
            Error::NoSuchGroup(name) => Error::NoSuchExtraGroup(name),
            error => error,
        })?;
        if !user.groups.contains(&gid) {
            user.groups.push(gid);
        }
    }
    Ok(user)
}

/// An image need not have the file: then it has no entries. The same for what is no file to read.
fn read(rootfs: &Path, path: &str) -> io::Result<String> {
    let file = match Inside::new(rootfs)?.open_regular(Path::new(path)) {
        Ok(file) => file,
        Err(error) => {
            use io::ErrorKind::{InvalidInput, NotADirectory, NotFound};
            let absent = matches!(error.kind(), NotFound | NotADirectory | InvalidInput)
                || error.raw_os_error() == Some(libc::ELOOP);
            return if absent {
                Ok(String::new())
            } else {
                Err(error)
            };
        }
    };
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: i64,
    gid: i64,
    home: &'a str,
}

/// Lines that are not whole are passed over. Docker takes a missing number for 0, so a stray word in the file becomes
/// a name for root: here it does not.
fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(PasswdEntry {
            name,
            uid,
            gid,
            home,
        })
    })
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: i64,
    members: &'a str,
}

impl GroupEntry<'_> {
    fn has(&self, user: &str) -> bool {
        self.members.split(',').any(|member| member == user)
    }
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        let members = fields.next().unwrap_or_default();
        Some(GroupEntry { name, gid, members })
    })
}

/// A word of digits is a number, even if a user has that name. A third field is passed over. All as Docker does.
fn find(spec: &str, passwd: &str, group: &str) -> Result<User, Error> {
    let mut fields = spec.split(':');
    let user_word = fields.next().unwrap_or_default();
    let group_word = fields.next().unwrap_or_default();
    let number: Option<i64> = user_word.parse().ok();
    let entry = passwd_entries(passwd).find(|entry| match (user_word, number) {
        ("", _) => entry.uid == 0,
        (_, Some(uid)) => entry.uid == uid,
        (name, None) => entry.name == name,
    });
    let mut user = User {
        home: "/".to_owned(),
        ..User::default()
    };
    match (&entry, number) {
        (Some(entry), _) => {
            user.uid = in_range(entry.uid)?;
            user.gid = in_range(entry.gid)?;
            if !entry.home.is_empty() {
                user.home = entry.home.to_owned();
            }
        }
        (None, Some(uid)) => user.uid = in_range(uid)?,
        (None, None) if user_word.is_empty() => {}
        (None, None) => return Err(Error::NoSuchUser(user_word.to_owned())),
    }
    if !group_word.is_empty() {
        user.gid = find_group(group_word, group)?;
    } else if let Some(entry) = entry {
        let listed = group_entries(group).filter(|group| group.has(entry.name));
        user.groups = listed
            .map(|group| in_range(group.gid))
            .collect::<Result<_, _>>()?;
    }
    Ok(user)
}

fn find_group(word: &str, group: &str) -> Result<u32, Error> {
    let number: Option<i64> = word.parse().ok();
    let entry = group_entries(group).find(|entry| match number {
        Some(gid) => entry.gid == gid,
        None => entry.name == word,
    });
    match (entry, number) {
        (Some(entry), _) => in_range(entry.gid),
        (None, Some(gid)) => in_range(gid),
        (None, None) => Err(Error::NoSuchGroup(word.to_owned())),
    }
}

fn in_range(id: i64) -> Result<u32, Error> {
    u32::try_from(id)
        .ok()
        .filter(|id| i64::from(*id) <= MAX_ID)
        .ok_or(Error::IdOutOfRange)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh
redis:x:999:998:redis:/var/lib/redis:/bin/sh
dup:x:1000:1000::/home/dup:/bin/sh
badline
+nis::::::
homeless:x:5:5:::
";
    const GROUP: &str = "root:x:0:
adm:x:4:redis,dup
redis:x:998:redis
num:x:50:redis
";

    /// `uid gid groups home`, or the error's text. The expected answers are Docker 20.10's for the same two files.
    fn check(spec: &str, expect: &str) {
        let got = match find(spec, PASSWD, GROUP) {
            Ok(u) => format!("{} {} {:?} {}", u.uid, u.gid, u.groups, u.home),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect, "{spec:?}");
    }

    #[test]
    fn names_and_numbers_are_found_as_docker_finds_them() {
        check("", "0 0 [] /root");
        check("redis", "999 998 [4, 998, 50] /var/lib/redis");
        check("999", "999 998 [4, 998, 50] /var/lib/redis");
        check("999:4", "999 4 [] /var/lib/redis");
        check("redis:adm", "999 4 [] /var/lib/redis");
        check("redis:0", "999 0 [] /var/lib/redis");
        check("redis:", "999 998 [4, 998, 50] /var/lib/redis");
        check("1234", "1234 0 [] /");
        check("1234:77", "1234 77 [] /");
        check("0", "0 0 [] /root");
        check(":4", "0 4 [] /root");
        check("1000", "1000 1000 [4] /home/dup");
        check("homeless", "5 5 [] /");
    }

    #[test]
    fn errors_have_dockers_texts() {
        let user = |u: &str| format!("unable to find user {u}: no matching entries in passwd file");
        check("nouser", &user("nouser"));
        check("a:b:c", &user("a"));
        check(" redis", &user(" redis"));
        // Docker takes this line for a second name of root.
        check("badline", &user("badline"));
        check(
            "1234:nogrp",
            "unable to find group nogrp: no matching entries in group file",
        );
        for spec in ["-1", "4294967296", "2147483648", "redis:-5"] {
            check(spec, "uids and gids must be in range 0-2147483647");
        }
    }

    fn rootfs() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("rootfs/etc")).unwrap();
        dir
    }

    #[test]
    fn a_passwd_that_links_out_of_the_image_is_not_read() {
        let dir = rootfs();
        let rootfs = dir.path().join("rootfs");
        let host = dir.path().join("shadow");
        std::fs::write(&host, "intruder:x:0:0::/:/bin/sh\n").unwrap();
        for target in [
            host.to_str().unwrap(),
            "../../shadow",
            "/proc/self/root/etc/passwd",
        ] {
            let link = rootfs.join("etc/passwd");
            let _ = std::fs::remove_file(&link);
            symlink(target, &link).unwrap();
            let error = look_up(&rootfs, "intruder", &[]).unwrap_err();
            assert!(matches!(error, Error::NoSuchUser(_)), "{target}: {error}");
            assert_eq!(look_up(&rootfs, "7", &[]).unwrap().uid, 7);
        }
    }

    #[test]
    fn a_link_inside_the_image_is_followed_as_the_program_would() {
        let dir = rootfs();
        let rootfs = dir.path().join("rootfs");
        std::fs::create_dir(rootfs.join("usr")).unwrap();
        std::fs::write(rootfs.join("usr/passwd"), PASSWD).unwrap();
        symlink("/usr/passwd", rootfs.join("etc/passwd")).unwrap();
        assert_eq!(look_up(&rootfs, "redis", &[]).unwrap().uid, 999);
    }

    #[test]
    fn a_fifo_or_a_directory_is_no_file_and_does_not_block() {
        let dir = rootfs();
        let rootfs = dir.path().join("rootfs");
        let fifo = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(rustix::fs::CWD, rootfs.join("etc/passwd"), fifo, mode, 0).unwrap();
        std::fs::create_dir(rootfs.join("etc/group")).unwrap();
        assert_eq!(look_up(&rootfs, "12:13", &[]).unwrap().gid, 13);
        assert!(look_up(&rootfs, "redis", &[]).is_err());
    }

    #[test]
    fn a_huge_file_is_refused_before_it_fills_the_memory() {
        let dir = rootfs();
        let rootfs = dir.path().join("rootfs");
        let file = std::fs::File::create(rootfs.join("etc/passwd")).unwrap();
        file.set_len(1 << 40).unwrap();
        let error = look_up(&rootfs, "1", &[]).unwrap_err();
        assert!(error.to_string().contains("/etc/passwd"), "{error}");
    }

    #[test]
    fn an_image_without_the_files_still_takes_numbers() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look_up(dir.path(), "5:6", &[]).unwrap().gid, 6);
        assert_eq!(look_up(dir.path(), "", &[]).unwrap().home, "/");
    }
}
