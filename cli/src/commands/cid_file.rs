//! `--cidfile`: the file is made before anything else, so that a second `run` sees it, and gets the ID once there is one.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use crate::failure::Failure;

/// A file that waits for an ID. Dropped before it has one, it is removed.
pub struct CidFile(Option<(PathBuf, File)>);

impl CidFile {
    /// `None`: there is none to write.
    pub fn make(path: Option<&Path>) -> Result<CidFile, Failure> {
        let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(CidFile(None));
        };
        match File::create_new(path) {
            Ok(file) => Ok(CidFile(Some((path.to_owned(), file)))),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(Failure::Own(anyhow!(
                    "container ID file found, make sure the other container isn't running or delete {}",
                    path.display()
                )))
            }
            Err(error) => Err(Failure::Own(anyhow::Error::new(error).context(format!(
                "failed to create the container ID file: open {}",
                path.display()
            )))),
        }
    }

    pub fn write(mut self, id: &str) -> Result<(), Failure> {
        let Some((path, mut file)) = self.0.take() else {
            return Ok(());
        };
        file.write_all(id.as_bytes())
            .with_context(|| format!("write the container ID file {}", path.display()))
            .map_err(Failure::Own)
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}
