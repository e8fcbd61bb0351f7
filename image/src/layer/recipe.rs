//! What a layer's tree does not tell of the tar that it came from, so that the same tar can be made again.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::LayerError;

/// Fast rather than small: a pull waits for it.
const LEVEL: i32 = 1;

/// Writes a recipe while its tar is applied.
pub struct Recorder {
    out: zstd::Encoder<'static, File>,
}

impl Recorder {
    /// Begins the recipe of the layer that is made in the directory `layer`: a file beside it. One that is there begins anew.
    pub fn create(layer: &Path) -> Result<Recorder, LayerError> {
        let failed = || LayerError::place("write the recipe of", b"");
        let file = File::create(path(layer)).map_err(failed())?;
        let out = zstd::Encoder::new(file, LEVEL).map_err(failed())?;
        Ok(Recorder { out })
    }

    pub fn finish(self) -> Result<(), LayerError> {
        let result = self.out.finish().map(drop);
        result.map_err(LayerError::place("write the recipe of", b""))
    }
}

/// What a recipe's name has after its layer's.
pub const SUFFIX: &str = ".recipe";

/// Where the recipe of the layer in a directory is.
pub fn path(layer: &Path) -> PathBuf {
    let mut path = layer.as_os_str().to_owned();
    path.push(SUFFIX);
    path.into()
}

/// A tar that is recorded as it is read.
pub struct Recorded<'a, R> {
    pub inner: R,
    pub recorder: &'a mut Recorder,
}

impl<R: Read> Read for Recorded<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.recorder.out.write_all(&buf[..n])?;
        Ok(n)
    }
}

/// Writes the tar again.
pub fn rebuild(recipe: File, out: &mut dyn Write) -> io::Result<()> {
    io::copy(&mut zstd::Decoder::new(recipe)?, out).map(drop)
}
