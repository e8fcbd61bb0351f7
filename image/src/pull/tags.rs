//! All tags of a repository, for a pull of each.

use super::{PullEvent, PullOptions, Shared, Source, pump};
use crate::Reference;
use crate::error::Error;
use crate::registry::{Access, Client};

/// The repository under each tag that the registry has for it, in the registry's order. Of the reference only the
/// repository counts.
pub fn tags(
    reference: &Reference,
    options: &PullOptions,
    progress: &mut dyn FnMut(PullEvent),
) -> Result<Vec<Reference>, Error> {
    let (shared, receiver) = Shared::new();
    let client = Client::new(reference, &options.registries, Access::Pull, &shared)?;
    let source = Source {
        client: &client,
        shared: &shared,
        receiver: &receiver,
        interrupt: &options.interrupt,
    };
    let tags = pump(&source, progress, || client.tags())?;
    let tagged = tags.into_iter().map(|tag| Reference {
        tag: Some(tag),
        digest: None,
        ..reference.clone()
    });
    Ok(tagged.collect())
}
