//! The harness of the black-box tests: machines made of network namespaces, and what to ask of them.
//!
//! A [`Host`] is a machine with a network of its own: the host, a neighbour on its LAN and an attacker, each a network namespace that the test
//! makes and that dies with it. The program under test is the built binary; nothing here knows its insides. Nothing is global: tests run
//! side by side, on a machine that has containers of its own.
//!
//! With `CORACLE_TEST_ENGINE=docker` the same tests run against a real `dockerd` (20.10) in the host's namespace, which checks the tests.

pub mod clean;
pub mod command;
pub mod docker;
pub mod host;
pub mod images;
pub mod layered;
pub mod mock;
pub mod nest;
pub mod net;
pub mod netns;
pub mod oci;
pub mod registry;
pub mod rules;
pub mod slow;
pub mod tape;
pub mod terminal;
pub mod trees;
pub mod usage;
pub mod wait;

pub use command::{Cmd, Output, Running};
pub use host::{Host, HostBuilder};
pub use mock::Mock;
pub use netns::Netns;
pub use registry::Registry;
pub use slow::Slow;
pub use tape::Tape;
pub use wait::{eventually, scaled, until};
