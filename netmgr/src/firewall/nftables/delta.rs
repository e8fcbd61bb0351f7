//! From one model to the next, as element adds and deletes whose number is that of the difference.
//!
//! Trusts that the table holds what the earlier model says; [`super::mend`] is for when it does not.

use std::collections::HashMap;
use std::hash::Hash;

use super::elements::{Elements, Guard, elements, of_endpoint, of_network};
use super::script::Script;
use crate::model::{Endpoint, Model, Network};
use crate::plan::{Batch, Tool};

/// The transaction from one model to the next and the one back. `None`: the table stays as it is.
pub fn delta(before: &Model, after: &Model) -> Option<Batch> {
    let (old, new) = differing(before, after);
    batch(&old, &new)
}

/// The transaction from one guard to another and the one back. `None`: they are the same.
pub fn guard_delta(before: Guard, after: Guard) -> Option<Batch> {
    let of = |guard| elements(&Model::default(), guard);
    batch(&of(before), &of(after))
}

fn batch(old: &Elements, new: &Elements) -> Option<Batch> {
    let forward = script(old, new);
    (!forward.is_empty()).then(|| Batch {
        tool: Tool::Nft,
        forward: forward.text(),
        inverse: script(new, old).text(),
    })
}

/// The elements of what is not the same in both models.
fn differing(before: &Model, after: &Model) -> (Elements, Elements) {
    let (old_networks, new_networks) =
        unequal(&before.networks, &after.networks, |n| n.id.as_str());
    let (mut old, mut new) = (Elements::new(), Elements::new());
    old_networks.iter().for_each(|n| of_network(n, &mut old));
    new_networks.iter().for_each(|n| of_network(n, &mut new));
    let (old_endpoints, new_endpoints) = match old_networks.iter().any(|n| is_in(n, &new_networks))
    {
        // A network that changed takes the elements of its containers' ports along.
        true => (
            before.endpoints.iter().collect(),
            after.endpoints.iter().collect(),
        ),
        false => unequal(&before.endpoints, &after.endpoints, |e| e.id.as_str()),
    };
    of_endpoints(before, &old_endpoints, &mut old);
    of_endpoints(after, &new_endpoints, &mut new);
    (old, new)
}

fn is_in(network: &Network, others: &[&Network]) -> bool {
    others.iter().any(|other| other.id == network.id)
}

fn of_endpoints(model: &Model, endpoints: &[&Endpoint], all: &mut Elements) {
    for endpoint in endpoints {
        if let Some(network) = model.network(&endpoint.network_id) {
            of_endpoint(network, endpoint, all);
        }
    }
}

/// What is only in one of two lists, or differs. What both begin and end with is skipped without a look-up.
fn unequal<'a, T: PartialEq, K: Hash + Eq>(
    before: &'a [T],
    after: &'a [T],
    key: impl Fn(&'a T) -> K,
) -> (Vec<&'a T>, Vec<&'a T>) {
    let head = before
        .iter()
        .zip(after)
        .take_while(|(old, new)| old == new)
        .count();
    let (before, after) = (&before[head..], &after[head..]);
    let pairs = before.iter().rev().zip(after.iter().rev());
    let tail = pairs.take_while(|(old, new)| old == new).count();
    let (before, after) = (&before[..before.len() - tail], &after[..after.len() - tail]);
    let old: HashMap<K, &T> = before.iter().map(|item| (key(item), item)).collect();
    let new: HashMap<K, &T> = after.iter().map(|item| (key(item), item)).collect();
    (
        before
            .iter()
            .filter(|&i| new.get(&key(i)) != Some(&i))
            .collect(),
        after
            .iter()
            .filter(|&i| old.get(&key(i)) != Some(&i))
            .collect(),
    )
}

/// Deletes before adds: a key may get another value.
pub(super) fn script(old: &Elements, new: &Elements) -> Script {
    let mut script = Script::default();
    let gone: Elements = without(old, new);
    let added: Elements = without(new, old);
    let sets = |elements: &Elements| {
        let mut names: Vec<&'static str> = elements.keys().map(|(set, _)| *set).collect();
        names.dedup();
        names
    };
    for set in sets(&gone) {
        let keys = gone.keys().filter(|(s, _)| *s == set);
        script.elements(
            "delete",
            set,
            keys.map(|(_, key)| (key.as_str(), None, None)),
        );
    }
    for set in sets(&added) {
        let entries = added.iter().filter(|((s, _), _)| *s == set);
        script.elements(
            "add",
            set,
            entries
                .map(|((_, key), e)| (key.as_str(), e.data.as_deref(), Some(e.comment.as_str()))),
        );
    }
    script
}

fn without(these: &Elements, those: &Elements) -> Elements {
    these
        .iter()
        .filter(|(key, element)| those.get(*key) != Some(*element))
        .map(|(key, element)| (key.clone(), element.clone()))
        .collect()
}
