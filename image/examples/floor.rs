//! The least that a pull can cost: what `scripts/bench pull` measures Coracle against.
//!
//! Reads layers' blobs (gzip) from files, hashes them with SHA-256, inflates them, hashes the tar, and writes its regular files, each with its
//! content under its own path. One thread for each processor takes the layers, the largest first; within a thread nothing waits for
//! anything else. It makes folders and files and nothing more: no owner, mode, time, attribute, link or device, no check of a path,
//! no download, no database. What hashes and inflates is Coracle's own.
//!
//!     floor [--sync] FOLDER BLOB...
//!
//! Prints of each layer the two digests, so that one can see that the work was done: `BLOB TAR`, in the order of the arguments. With
//! `--sync` it ends when all is on the disk (syncfs(2)), as Coracle's commit does.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use image::plain::plain;
use image::registry::manifest::Compression;
use sha2::{Digest, Sha256};

const CHUNK: usize = 256 << 10;

fn main() -> io::Result<()> {
    let mut args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let sync = args.first().is_some_and(|arg| arg.as_os_str() == "--sync");
    if sync {
        args.remove(0);
    }
    let Some((folder, blobs)) = args.split_first() else {
        return Err(io::Error::other("floor [--sync] FOLDER BLOB..."));
    };
    let mut largest_first: Vec<(u64, usize)> = Vec::new();
    for (number, blob) in blobs.iter().enumerate() {
        largest_first.push((fs::metadata(blob)?.len(), number));
    }
    largest_first.sort_unstable_by(|a, b| b.cmp(a));
    let next = AtomicUsize::new(0);
    let done = Mutex::new(vec![None; blobs.len()]);
    thread::scope(|scope| {
        let work = || -> io::Result<()> {
            while let Some(&(_, number)) = largest_first.get(next.fetch_add(1, Ordering::Relaxed)) {
                let digests = layer(&blobs[number], &folder.join(number.to_string()))?;
                done.lock().expect("no thread panics")[number] = Some(digests);
            }
            Ok(())
        };
        let workers: Vec<_> = (0..thread::available_parallelism()?.get())
            .map(|_| scope.spawn(work))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("no thread panics"))
    })?;
    if sync {
        rustix::fs::syncfs(File::open(folder)?)?;
    }
    for digests in done.into_inner().expect("no thread panics") {
        println!("{}", digests.expect("all layers are done"));
    }
    Ok(())
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    fn new(inner: R) -> Self {
        let hash = Sha256::new();
        Hashing { inner, hash }
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(&buf[..n]);
        Ok(n)
    }
}

fn layer(blob: &Path, root: &Path) -> io::Result<String> {
    fs::create_dir_all(root)?;
    let mut blob = Hashing::new(File::open(blob)?);
    let plain = Hashing::new(plain(&mut blob, Compression::Gzip)?);
    let mut archive = tar::Archive::new(BufReader::with_capacity(CHUNK, plain));
    let mut folders = HashSet::from([root.to_owned()]);
    let mut buffer = vec![0; CHUNK];
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let names = entry.path()?;
        let names = names
            .components()
            .filter(|name| matches!(name, Component::Normal(_)));
        let path = root.join(names.collect::<PathBuf>());
        let parent = path.parent().unwrap_or(root);
        if !folders.contains(parent) {
            fs::create_dir_all(parent)?;
            folders.insert(parent.to_owned());
        }
        let mut file = File::create(&path)?;
        loop {
            match entry.read(&mut buffer)? {
                0 => break,
                n => file.write_all(&buffer[..n])?,
            }
        }
    }
    let mut plain = archive.into_inner();
    io::copy(&mut plain, &mut io::sink())?;
    let tar = plain.into_inner().hash.finalize();
    // The last member's reader has looked for another one: this blob is at its end.
    let blob = blob.hash.finalize();
    Ok(format!("sha256:{blob:x} sha256:{tar:x}"))
}
