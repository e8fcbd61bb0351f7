//! The nftables backend: one table of our own, whose chains and rules never change.
//!
//! Everything that depends on the model is an element of a set or map ([`chains`] has the rules, [`elements`] decides which
//! elements there are), so a change is a few element adds and deletes in one transaction: its cost is that of the change,
//! and a packet costs the same however many ports, containers and networks there are. Pure: `kernel::commands` runs `nft`.
//!
//! What a packet meets means the same as with [`super::policy`], with these differences, all on purpose:
//! - What comes from a network that is not internal is never DNATed, with or without masquerading: its containers use
//!   published ports, their own too, by way of the proxy. Hence no hairpin masquerade.
//! - A port published on a loopback address is not DNATed and not accepted at all, since only the proxy serves it.
//! - nftables has no port offsets (`iptables --to-destination A:90-99/80`), so a run of ports whose container's ports
//!   differ from the host's becomes one element a port; a run of equal ports is one element, whatever its length.
//! - Unpublished ports are dropped by our own last word in `into-network`, not by the policy of FORWARD.

mod chains;
mod compare;
mod decompile;
mod delta;
mod elements;
mod found;
mod layout;
mod mend;
mod script;

pub use compare::differences;
pub use delta::{delta, guard_delta};
pub use elements::{Element, Elements, Guard, elements};
pub use found::{FoundChain, FoundElement, FoundRule, FoundSet, FoundTable, ParseError, parse};
pub use layout::{FAMILY, Hook, TABLE, USER_CHAIN};
pub use mend::{Mending, mend};
pub use script::{explained, render_elements, render_layout};
