//! How a front end asks a long call to come to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A request that is made once and stays. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
