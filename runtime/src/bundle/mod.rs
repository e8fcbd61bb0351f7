//! What a container finds around its program: the root filesystem, its files in /etc, and our own sealed binary.

pub mod inside;
