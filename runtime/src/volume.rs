//! stand-in
use crate::error::Error;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
pub fn create_tables(_: &Connection) -> Result<(), Error> {
    todo!()
}
pub fn create(_: &Connection, _: &Path, _: &str, _: bool) -> Result<(), Error> {
    todo!()
}
pub fn path(_: &Path, _: &str) -> PathBuf {
    todo!()
}
pub fn remove_if_anonymous(_: &Connection, _: &Path, _: &str) -> Result<(), Error> {
    todo!()
}
pub fn populate(_: &Path, _: &str, _: &Path) -> Result<(), Error> {
    todo!()
}
pub fn ensure_mountpoint(_: &Path, _: &str, _: bool) -> Result<(), Error> {
    todo!()
}
