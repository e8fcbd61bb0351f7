//! Tars made entry by entry, with every byte as the test wants it: what no writer of tars would write.

use std::io::Write;

use tar::{EntryType, Header};

/// An archive under construction.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    bytes: Vec<u8>,
}

impl Tape {
    pub fn new() -> Tape {
        Tape::default()
    }

    /// A header whose name is exactly this; at most 100 bytes.
    pub fn header(kind: EntryType, name: &str, mode: u32) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(0);
        header
    }

    /// An entry with its data, size and checksum put right.
    pub fn add(self, mut header: Header, data: &[u8]) -> Tape {
        if header.entry_type().is_file() || !data.is_empty() {
            header.set_size(data.len() as u64);
        }
        self.as_it_is(header, data)
    }

    /// An entry whose size is what the header says, whatever the data are.
    pub fn as_it_is(mut self, mut header: Header, data: &[u8]) -> Tape {
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Tape {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn file(self, name: &str, data: impl AsRef<[u8]>) -> Tape {
        self.add(Tape::header(EntryType::Regular, name, 0o644), data.as_ref())
    }

    pub fn dir(self, name: &str, mode: u32) -> Tape {
        self.add(Tape::header(EntryType::Directory, name, mode), b"")
    }

    pub fn link(self, kind: EntryType, name: &str, target: &str) -> Tape {
        let mut header = Tape::header(kind, name, 0o777);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.add(header, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Tape {
        self.link(EntryType::Symlink, name, target)
    }

    pub fn hardlink(self, name: &str, target: &str) -> Tape {
        self.link(EntryType::Link, name, target)
    }

    pub fn device(self, kind: EntryType, name: &str, major: u32, minor: u32) -> Tape {
        let mut header = Tape::header(kind, name, 0o640);
        header.set_device_major(major).expect("a ustar header");
        header.set_device_minor(minor).expect("a ustar header");
        self.add(header, b"")
    }

    /// PAX records for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tape {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length.to_string().len() + rest != length {
                length += 1;
            }
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.pax_bytes(&data)
    }

    /// What is to pass for PAX records.
    pub fn pax_bytes(self, data: &[u8]) -> Tape {
        self.add(Tape::header(EntryType::XHeader, "PaxHeader", 0o644), data)
    }

    /// A GNU long name for the next entry.
    pub fn long_name(self, name: &[u8]) -> Tape {
        let data = [name, b"\0"].concat();
        let header = Tape::header(EntryType::GNULongName, "././@LongLink", 0o644);
        self.add(header, &data)
    }

    /// With the two blocks that end an archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }

    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }
}

/// Packs by gzip, one member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("write to memory");
    encoder.finish().expect("write to memory")
}

/// Packs by zstd, one frame.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("write to memory")
}
