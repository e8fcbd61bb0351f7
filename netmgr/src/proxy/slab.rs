//! Numbered places for connections and flows, with keys that do not outlive what they name.

/// An index and the generation of what was put there: an event that was read before its connection was closed does
/// not reach the next one in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// How many bits [`Key::to_bits`] uses.
    pub(crate) const BITS: u32 = 56;
    const GENERATION: u32 = (1 << 24) - 1;

    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_bits(bits: u64) -> Key {
        Key {
            index: bits as u32,
            generation: (bits >> 32) as u32 & Key::GENERATION,
        }
    }
}

pub(crate) struct Slab<T> {
    entries: Vec<Option<(u32, T)>>,
    free: Vec<u32>,
    next_generation: u32,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Slab<T> {
        Slab {
            entries: Vec::new(),
            free: Vec::new(),
            next_generation: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        let generation = self.next_generation;
        self.next_generation = (generation + 1) & Key::GENERATION;
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = Some((generation, value));
                index
            }
            None => {
                self.entries.push(Some((generation, value)));
                (self.entries.len() - 1) as u32
            }
        };
        Key { index, generation }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entries.get_mut(key.index as usize) {
            Some(Some((generation, value))) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.get_mut(key)?;
        let (_, value) = self.entries[key.index as usize].take()?;
        self.free.push(key.index);
        if self.is_empty() {
            // A busy hour must not be paid for in memory for ever.
            self.clear();
        }
        Some(value)
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }

    /// Keys given out before name nothing afterwards.
    pub(crate) fn clear(&mut self) {
        self.entries = Vec::new();
        self.free = Vec::new();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| {
                let (generation, value) = entry.as_ref()?;
                let key = Key {
                    index: index as u32,
                    generation: *generation,
                };
                Some((key, value))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_key_does_not_reach_the_next_in_its_place() {
        let mut slab = Slab::new();
        let kept = slab.insert("kept");
        let old = slab.insert("old");
        assert_eq!(slab.remove(old), Some("old"));
        let new = slab.insert("new");
        assert_eq!(
            (old.index, slab.len()),
            (new.index, 2),
            "the place is used again"
        );
        assert_eq!(slab.get_mut(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(
            slab.get_mut(Key::from_bits(new.to_bits())),
            Some(&mut "new")
        );
        slab.remove(new);
        slab.remove(kept);
        assert!(slab.is_empty() && slab.entries.capacity() == 0);
    }
}
