//! The reading side of a log: through the full files to the one that is written, and on with it across rotations.
//!
//! Nothing tells the writer that there is a reader: one that is stuck holds up nobody. It may miss files that were removed
//! before it came to them, as `max-file` wants it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use flate2::read::GzDecoder;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::files::{compressed, identity, numbered, rotated};
use super::{Entry, Format, Found, Stamp, Stream, tail};

/// Which records are printed, and how.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub follow: bool,
    pub timestamps: bool,
    /// What was asked to be noted with each record (`--log-opt labels=...`).
    pub details: bool,
    /// The last so many; `None`: all.
    pub tail: Option<usize>,
    /// Not those before this.
    pub since: Option<Stamp>,
    /// Not those after this.
    pub until: Option<Stamp>,
}

const BLOCK: usize = 256 * 1024;

/// Prints a log. With `follow`, until `ended` becomes readable (the descriptor of the container's monitor).
pub fn read(
    path: &Path,
    format: Format,
    wanted: &Wanted,
    ended: Option<&OwnedFd>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<()> {
    let ended = ended.filter(|_| wanted.follow);
    // Before the first look: what is written after it, is told.
    let watch = ended.map(|ended| watch(path).map(|it| (it, ended)));
    let watch = watch.transpose()?;
    let mut printer = Printer {
        wanted,
        out,
        err,
        last: Stream::Stdout,
        within_line: [false; 2],
        over: false,
    };
    let mut place = Place::begin(path, format, wanted.tail)?;
    place.read_on(&mut printer)?;
    printer.flush()?;
    let Some((inotify, ended)) = watch else {
        return Ok(());
    };
    while !printer.over {
        let over = wait(&inotify, ended, wanted.until)?;
        // After the end everything is in the files: one last look is enough.
        place.read_on(&mut printer)?;
        printer.flush()?;
        if over {
            break;
        }
    }
    Ok(())
}

/// Where in the log a reader is.
struct Place<'a> {
    path: &'a Path,
    format: Format,
    /// The number that the file has or will have when it is full.
    number: u64,
    /// `None`: the file of this number is not there yet.
    records: Option<Records>,
}

impl<'a> Place<'a> {
    fn begin(path: &'a Path, format: Format, tail: Option<usize>) -> io::Result<Place<'a>> {
        let first = rotated(path)?.first().copied().unwrap_or(1);
        let mut place = Place {
            path,
            format,
            number: first,
            records: None,
        };
        match tail {
            None => place.open_next(first)?,
            Some(count) => place.open_tail(count)?,
        }
        Ok(place)
    }

    /// Opens the oldest file that is not older than `number`.
    fn open_next(&mut self, number: u64) -> io::Result<()> {
        loop {
            let full = rotated(self.path)?;
            for number in full.iter().copied().filter(|found| *found >= number) {
                if let Some(source) = open_full(&numbered(self.path, number))? {
                    self.number = number;
                    self.records = Some(Records::new(source, self.format));
                    return Ok(());
                }
            }
            let file = open(self.path)?;
            // Rotated between the two looks: the file may be one later than we take it for.
            if rotated(self.path)? != full {
                continue;
            }
            self.number = full.last().map_or(1, |last| last + 1).max(number);
            self.records = file.map(|file| Records::new(Source::Plain(file), self.format));
            return Ok(());
        }
    }

    /// Looks from the newest file backwards for the last so many records.
    fn open_tail(&mut self, count: usize) -> io::Result<()> {
        let newest = rotated(self.path)?.last().map_or(1, |last| last + 1);
        let mut left = count;
        for number in (0..=newest).rev() {
            let source = match number == newest {
                true => open(self.path)?.map(Source::Plain),
                false => open_full(&numbered(self.path, number))?,
            };
            let Some(mut source) = source else {
                if number == newest {
                    continue;
                }
                break;
            };
            let found = match &mut source {
                Source::Plain(file) => {
                    let (at, found) = tail::start(file, self.format, left)?;
                    file.seek(SeekFrom::Start(at))?;
                    self.records = Some(Records::at(source, self.format, at));
                    found
                }
                Source::Compressed(_) => {
                    let all = Records::new(source, self.format).count()?;
                    let again = open_full(&numbered(self.path, number))?;
                    let mut records = again.map(|source| Records::new(source, self.format));
                    if let Some(records) = &mut records {
                        records.skip(all.saturating_sub(left))?;
                    }
                    self.records = records;
                    all
                }
            };
            self.number = number;
            left = left.saturating_sub(found);
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Prints all that is there now.
    fn read_on(&mut self, printer: &mut Printer<'_>) -> io::Result<()> {
        loop {
            let Some(records) = &mut self.records else {
                self.open_next(self.number)?;
                if self.records.is_none() {
                    return Ok(());
                }
                continue;
            };
            records.each(|entry| printer.print(entry))?;
            if printer.over || records.is_written_on(self.path)? {
                return Ok(());
            }
            // Full, and what was written last before that is there.
            records.each(|entry| printer.print(entry))?;
            self.records = None;
            self.number += 1;
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A full file, compressed or not; `None` if it has been removed.
fn open_full(path: &Path) -> io::Result<Option<Source>> {
    if let Some(file) = open(path)? {
        return Ok(Some(Source::Plain(file)));
    }
    Ok(open(&compressed(path))?.map(|file| Source::Compressed(Box::new(GzDecoder::new(file)))))
}

enum Source {
    Plain(File),
    Compressed(Box<GzDecoder<File>>),
}

/// The records of a file. One that is still being written is left for the next look.
struct Records {
    source: Source,
    format: Format,
    block: Vec<u8>,
    /// What was read and not been used.
    buffer: Vec<u8>,
    /// Of the buffer's first byte in the file.
    offset: u64,
}

impl Records {
    fn new(source: Source, format: Format) -> Records {
        Records::at(source, format, 0)
    }

    fn at(source: Source, format: Format, offset: u64) -> Records {
        Records {
            source,
            format,
            block: vec![0; BLOCK],
            buffer: Vec::new(),
            offset,
        }
    }

    /// Whether the file is the one that `path` names, and so may grow.
    fn is_written_on(&self, path: &Path) -> io::Result<bool> {
        let Source::Plain(file) = &self.source else {
            return Ok(false);
        };
        match fs::metadata(path) {
            Ok(now) => Ok(identity(&now) == identity(&file.metadata()?)),
            // Just being rotated, or removed together with the container: in either case nothing more comes to this one.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Reads on; 0 at the end.
    fn fill(&mut self) -> io::Result<usize> {
        loop {
            let read = match &mut self.source {
                Source::Plain(file) => file.read(&mut self.block),
                Source::Compressed(decoder) => decoder.read(&mut self.block),
            };
            match read {
                Ok(count) => {
                    self.buffer.extend_from_slice(&self.block[..count]);
                    return Ok(count);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn each(&mut self, mut f: impl FnMut(&Entry<'_>) -> io::Result<bool>) -> io::Result<()> {
        loop {
            let count = self.fill()?;
            let mut at = 0;
            while let Found::Record(length, entry) = self.format.first(&self.buffer[at..]) {
                if length == 0 {
                    break;
                }
                at += length;
                // What was torn by a power loss is passed over: what stands around it is whole.
                if let Some(entry) = entry
                    && !f(&entry)?
                {
                    return Ok(());
                }
            }
            self.buffer.drain(..at);
            self.offset += at as u64;
            if count == 0 {
                // A writer that takes a killed one's place cuts off a torn record: read its place again.
                if let Source::Plain(file) = &mut self.source {
                    file.seek(SeekFrom::Start(self.offset))?;
                    self.buffer.clear();
                }
                return Ok(());
            }
        }
    }

    fn count(mut self) -> io::Result<usize> {
        let mut all = 0;
        self.each(|_| {
            all += 1;
            Ok(true)
        })?;
        Ok(all)
    }

    fn skip(&mut self, count: usize) -> io::Result<()> {
        self.buffer.clear();
        let mut left = count;
        while left > 0 {
            let read = self.fill()?;
            let mut at = 0;
            while left > 0
                && let Found::Record(length @ 1.., _) = self.format.first(&self.buffer[at..])
            {
                at += length;
                left -= 1;
            }
            self.buffer.drain(..at);
            self.offset += at as u64;
            if read == 0 {
                break;
            }
        }
        Ok(())
    }
}

struct Printer<'a> {
    wanted: &'a Wanted,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    /// Where the last record went: the two may be one terminal, and their order is to stay.
    last: Stream,
    /// The last piece of each stream had no newline: nothing goes before the next.
    within_line: [bool; 2],
    /// What was asked for lies behind.
    over: bool,
}

impl Printer<'_> {
    /// False once nothing more is wanted.
    fn print(&mut self, entry: &Entry<'_>) -> io::Result<bool> {
        if self
            .wanted
            .since
            .is_some_and(|since| entry.time.stamp() < since)
        {
            return Ok(true);
        }
        if self
            .wanted
            .until
            .is_some_and(|until| entry.time.stamp() > until)
        {
            self.over = true;
            return Ok(false);
        }
        if self.last != entry.stream {
            self.flush()?;
            self.last = entry.stream;
        }
        let to = match entry.stream {
            Stream::Stdout => &mut self.out,
            Stream::Stderr => &mut self.err,
        };
        let within = &mut self.within_line[entry.stream as usize];
        if !*within {
            if self.wanted.timestamps {
                write!(to, "{} ", entry.time.stamp().text())?;
            }
            if self.wanted.details {
                write!(to, "{} ", details(&entry.attributes))?;
            }
        }
        *within = !entry.bytes.ends_with(b"\n");
        to.write_all(&entry.bytes)?;
        Ok(true)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.err.flush()
    }
}

/// `a=1,b=2`, as in a URL.
fn details(attributes: &[(String, String)]) -> String {
    let pairs = attributes.iter();
    let pairs = pairs.map(|(name, value)| format!("{}={}", quoted(name), quoted(value)));
    pairs.collect::<Vec<_>>().join(",")
}

/// What a query of a URL may hold; the rest in percent signs, a space as a plus.
fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => quoted.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => {
                quoted.push(byte.into());
            }
            byte => quoted.push_str(&format!("%{byte:02X}")),
        }
    }
    quoted
}

/// The folder, since files come and go.
fn watch(path: &Path) -> io::Result<OwnedFd> {
    use inotify::{CreateFlags, WatchFlags};
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let events = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
    inotify::add_watch(&inotify, folder, events)?;
    Ok(inotify)
}

/// Waits for more of the log, or for the end: true at the container's, and when the time has come that was asked for.
fn wait(inotify: &OwnedFd, ended: &OwnedFd, until: Option<Stamp>) -> io::Result<bool> {
    let left = until.map(|until| until.0.saturating_sub(Stamp::now().0).max(0));
    let left = left.map(|nanoseconds| Timespec {
        tv_sec: nanoseconds / 1_000_000_000,
        tv_nsec: nanoseconds % 1_000_000_000,
    });
    let mut fds = [
        PollFd::new(inotify, PollFlags::IN),
        PollFd::new(ended, PollFlags::IN),
    ];
    match poll(&mut fds, left.as_ref()) {
        Ok(0) => return Ok(true),
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let over = !fds[1].revents().is_empty();
    let mut events = [0u8; 4096];
    while matches!(rustix::io::read(inotify, &mut events), Ok(n) if n > 0) {}
    Ok(over)
}
