//! `build`: not here, but it says where.

use clap::Args;

use super::Answer;
use crate::failure::Failure;

/// Not built in: build with buildah or BuildKit, and load the result
#[derive(Debug, Args)]
#[command(override_usage = "coracle build")]
pub struct Build {
    /// Whatever `docker build` would be given
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARG"
    )]
    _words: Vec<String>,
}

pub fn run() -> Answer {
    Err(Failure::Plain {
        text: "coracle: images are built by buildah or BuildKit and then loaded (docs/images.md):\n\n  \
               buildah build -t NAME . && buildah push NAME docker-archive:/dev/stdout:NAME:latest | coracle load\n  \
               buildctl build --frontend dockerfile.v0 --local context=. --local dockerfile=. \
               --output type=docker,name=NAME | coracle load"
            .to_owned(),
        code: 1,
    })
}
