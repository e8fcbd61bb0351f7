//! `cp`: files into a container and out of it, by Docker's rules of what a path means.

mod local;

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context as _, anyhow};
use clap::Args;
use image::layer::pack::Packer;
use image::layer::unpack::{Owner, Symlinks, Unpacking, unpack};
use image::pipe::{PipeWriter, pipe};
use runtime::Engine;
use runtime::engine::files::{Ownership, PathStat, absolute, base_name, split};

use super::{Answer, Context};
use crate::failure::Failure;
use crate::output::words;

/// Copy files/folders between a container and the local filesystem
#[derive(Debug, Args)]
#[command(
    override_usage = "coracle cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n       coracle cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    after_help = "'-' as the source reads a tar archive from stdin and extracts it to a directory in a container.\n'-' as the destination writes a tar archive of a container's source to stdout."
)]
pub struct Cp {
    /// Archive mode (copy all uid/gid information)
    #[arg(short, long)]
    archive: bool,
    /// Always follow symbol link in SRC_PATH
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing about what was copied; that is so where stdout is no terminal
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "SRC_PATH")]
    source: String,
    #[arg(value_name = "DEST_PATH")]
    destination: String,
}

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Local(&'a str),
    Container(&'a str, &'a str),
}

impl<'a> Place<'a> {
    /// `/a:b` and `./a:b` are local.
    fn parse(text: &'a str) -> Place<'a> {
        match text.split_once(':') {
            Some((container, path)) if !text.starts_with(['/', '.']) => {
                Place::Container(container, path)
            }
            _ => Place::Local(text),
        }
    }
}

pub fn run(context: &Context, options: Cp) -> Answer {
    let refuse = |text: &str| Err(Failure::Refused(anyhow!("{text}")));
    if options.source.is_empty() {
        return refuse("source can not be empty");
    }
    if options.destination.is_empty() {
        return refuse("destination can not be empty");
    }
    let (size, to) = match (
        Place::parse(&options.source),
        Place::parse(&options.destination),
    ) {
        (Place::Container(_, ""), _) | (_, Place::Container(_, "")) => {
            return refuse("bad parameter: path cannot be empty");
        }
        (Place::Container(container, path), Place::Local(local)) => {
            let mut engine = context.engine()?;
            let size = copy_out(&mut engine, container, path, local, options.follow_link)?;
            (size, local.to_owned())
        }
        (Place::Local(local), Place::Container(container, path)) => {
            let mut engine = context.engine()?;
            engine.find(container)?;
            let size = copy_in(&mut engine, local, container, path, &options)?;
            (size, format!("{container}:{path}"))
        }
        (Place::Container(..), Place::Container(..)) => {
            return refuse("copying between containers is not supported");
        }
        (Place::Local(_), Place::Local(_)) => {
            return refuse("must specify at least one container source");
        }
    };
    if !options.quiet && to != "-" && std::io::stdout().is_terminal() {
        eprintln!("Successfully copied {} to {to}", words::size(size));
    }
    Ok(0)
}

/// What is known of a destination.
struct Target {
    path: String,
    /// Whether it is a directory, if it is there.
    is_directory: Option<bool>,
}

impl Target {
    /// The directory to unpack in, and the name that what is copied gets there; `None`: its own.
    fn prepare(&self, source_is_directory: bool) -> Result<(String, Option<String>), Failure> {
        let refuse = |text: &str| Err(Failure::Refused(anyhow!("{text}")));
        let (dir, name) = split(&self.path);
        match (self.is_directory, source_is_directory) {
            (Some(true), _) => Ok((self.path.clone(), None)),
            (Some(false), true) => refuse("cannot copy directory"),
            (None, false) if self.path.ends_with('/') || self.path.ends_with("/.") => {
                refuse("no such directory")
            }
            _ => Ok((dir, Some(name))),
        }
    }
}

fn copy_out(
    engine: &mut Engine,
    container: &str,
    path: &str,
    local: &str,
    follow: bool,
) -> Result<u64, Failure> {
    let output = local::absolute(local)?;
    if local != "-" {
        local::check_output(&output)?;
    }
    let mut path = path.to_owned();
    let mut stat = engine.stat_path(container, &path)?;
    let mut rename = None;
    if let (true, Some(target)) = (follow, &stat.link_target) {
        let asked = base_name(&absolute(&path));
        path.clone_from(target);
        stat = engine.stat_path(container, &path)?;
        rename = Some(asked).filter(|name| *name != base_name(&path));
    }
    if local == "-" {
        let mut out = std::io::stdout();
        engine.archive_path(container, &path, None, &mut out)?;
        return Ok(0);
    }
    let target = local::target(&output)?;
    let (dir, name) = target.prepare(stat.is_directory())?;
    let root: OwnedFd = File::open(&dir)
        .with_context(|| format!("open {dir}"))?
        .into();
    let rename = name.or(rename);
    let (mut writer, reader) = pipe();
    let mut counted = Counted {
        inner: reader,
        count: 0,
    };
    let (packed, unpacked) = std::thread::scope(|scope| {
        let packing = scope.spawn(|| {
            let packed = engine.archive_path(container, &path, rename.as_deref(), &mut writer);
            if let Err(error) = &packed {
                writer.fail(error);
            }
            drop(writer);
            packed
        });
        let unpacking = Unpacking {
            owner: Owner::Caller,
            symlinks: Symlinks::Refused,
        };
        let unpacked = unpack(&root, b"", &mut counted, unpacking);
        let size = counted.count;
        // Then the other side hears that nobody reads any more.
        drop(counted);
        (packing.join(), unpacked.map(|()| size))
    });
    let packed = packed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    both(packed, unpacked.map_err(runtime::Error::from))
}

/// Of two ends of a pipe, the one that failed by itself tells why.
fn both(
    packed: Result<(), runtime::Error>,
    unpacked: Result<u64, runtime::Error>,
) -> Result<u64, Failure> {
    match (packed, unpacked) {
        (Err(error), _) if !is_broken_pipe(&error) => Err(error.into()),
        (_, Err(error)) | (Err(error), _) => Err(error.into()),
        (Ok(()), Ok(size)) => Ok(size),
    }
}

fn is_broken_pipe(error: &runtime::Error) -> bool {
    matches!(
        error,
        runtime::Error::Pack(image::layer::pack::PackError::Write(_))
    )
}

fn copy_in(
    engine: &mut Engine,
    local: &str,
    container: &str,
    path: &str,
    options: &Cp,
) -> Result<u64, Failure> {
    let ownership = match options.archive {
        true => Ownership::ContainersUser,
        false => Ownership::AsPacked,
    };
    let target = target_inside(engine, container, path)?;
    if local == "-" {
        if target.is_directory != Some(true) {
            return Err(Failure::Refused(anyhow!(
                "destination \"{container}:{path}\" must be a directory"
            )));
        }
        let mut stdin = std::io::stdin();
        engine.extract_to_dir(container, &target.path, &mut stdin, ownership)?;
        return Ok(0);
    }
    let source = local::source(&local::absolute(local)?, options.follow_link)?;
    let (dir, name) = target.prepare(source.is_directory)?;
    let name = name.unwrap_or_else(|| source.name.clone());
    let from: OwnedFd = File::open(&source.dir)
        .with_context(|| format!("open {}", source.dir))?
        .into();
    let (writer, reader) = pipe();
    let mut counted = Counted {
        inner: reader,
        count: 0,
    };
    let (packed, unpacked) = std::thread::scope(|scope| {
        let packing = scope.spawn(|| pack(&from, &source.last, &name, writer));
        let unpacked = engine.extract_to_dir(container, &dir, &mut counted, ownership);
        let size = counted.count;
        drop(counted);
        (packing.join(), unpacked.map(|()| size))
    });
    let packed = packed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    both(packed, unpacked)
}

fn pack(
    dir: &OwnedFd,
    last: &str,
    name: &str,
    mut writer: PipeWriter,
) -> Result<(), runtime::Error> {
    let mut packer = Packer::new(&mut writer);
    let packed = packer
        .tree(dir.as_fd(), last.as_bytes(), name.as_bytes())
        .and_then(|()| packer.finish().map(drop));
    if let Err(error) = &packed {
        writer.fail(error);
    }
    Ok(packed?)
}

/// A symlink as the destination is followed, wherever it leads.
fn target_inside(engine: &mut Engine, container: &str, path: &str) -> Result<Target, Failure> {
    // Docker looks no further where the path itself cannot be looked up: unpacking will tell.
    let mut path = absolute(path);
    let mut stat: Option<PathStat> = engine.stat_path(container, &path).ok();
    if let Some(target) = stat.as_ref().and_then(|stat| stat.link_target.clone()) {
        path = target;
        stat = engine.stat_path(container, &path).ok();
    }
    if let Some(stat) = &stat {
        local::check_kind(stat.mode).map_err(|why| {
            Failure::Refused(anyhow!(
                "destination \"{container}:{path}\" must be a directory or a regular file: {why}"
            ))
        })?;
    }
    Ok(Target {
        path,
        is_directory: stat.map(|stat| stat.is_directory()),
    })
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count += n as u64;
        Ok(n)
    }
}

/// Writes to a file beside the wanted one, which it becomes at the end. `failed` introduces what is wrong with the path.
pub fn write_whole(
    path: &str,
    failed: &'static str,
    write: impl FnOnce(&mut (dyn Write + Send)) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let path = local::absolute(path)?;
    local::check_output(&path).map_err(|failure| match failure {
        Failure::Refused(error) => Failure::Refused(error.context(failed)),
        other => other,
    })?;
    let (dir, _) = split(&path);
    let mut file = tempfile::Builder::new()
        .prefix(".coracle_temp_")
        .tempfile_in(&dir)
        .with_context(|| format!("make a file in {dir}"))?;
    write(file.as_file_mut())?;
    file.persist(&path)
        .with_context(|| format!("write {path}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_colon_is_a_container_unless_it_looks_like_a_path() {
        for (text, place) in [
            ("c:/x", Place::Container("c", "/x")),
            ("c:x:y", Place::Container("c", "x:y")),
            ("/c:/x", Place::Local("/c:/x")),
            ("./c:x", Place::Local("./c:x")),
            ("-", Place::Local("-")),
            ("c:", Place::Container("c", "")),
        ] {
            assert_eq!(Place::parse(text), place);
        }
    }

    #[test]
    fn a_destination_says_where_to_unpack_and_under_which_name() {
        let target = |path: &str, is_directory| Target {
            path: path.to_owned(),
            is_directory,
        };
        let gives = |target: Target, source_is_directory| {
            let (dir, name) = target.prepare(source_is_directory).ok()?;
            Some((dir, name.unwrap_or_default()))
        };
        let place = |dir: &str, name: &str| Some((dir.to_owned(), name.to_owned()));
        assert_eq!(gives(target("/d", Some(true)), true), place("/d", ""));
        assert_eq!(gives(target("/d/f", Some(false)), false), place("/d", "f"));
        assert_eq!(gives(target("/d/f", Some(false)), true), None);
        assert_eq!(gives(target("/d/n", None), true), place("/d", "n"));
        assert_eq!(gives(target("/d/n/", None), true), place("/d", "n"));
        assert_eq!(gives(target("/d/n/", None), false), None);
        assert_eq!(gives(target("/d/n", None), false), place("/d", "n"));
    }
}
