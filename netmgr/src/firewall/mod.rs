//! Rules as data: what they are ([`ruleset`]), which ones there must be ([`policy`]), how iptables writes them
//! ([`iptables`], [`nftables`] has its own form), how to get from one ruleset to the next ([`diff`]) and from whatever is in the kernel to the one that
//! must be ([`mend`]), and how far a batch came that failed ([`committed`]). Pure: nothing here runs a command.

pub mod ruleset;

pub mod policy;

pub mod iptables;

pub mod diff;

pub mod mend;

pub mod committed;

pub mod nftables;
