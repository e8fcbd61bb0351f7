//! What a container finds around its program: the root filesystem, its files in /etc, and our own sealed binary.
//!
//! Each part does one step; `engine` and `oci` say when.

mod etc;
mod host;
mod init;
pub mod inside;
mod kernel;
mod labels;
mod late;
mod overlay;
mod seal;
mod view;

pub use etc::{
    Asked, Resolver, extended_hosts, host_resolv_conf, hosts_file, hosts_of_others, hosts_with,
    hosts_without, resolv_conf,
};
pub use host::{asked_devices, cgroup_v1_hierarchies, host_devices};
pub use init::{init_path, place_init};
pub use labels::labels;
pub use late::{Late, Moment, clone_late};
pub use overlay::{check_rootfs, make_mounts_slave, mount_overlay};
pub use seal::{run_sealed, seal_self};
pub use view::{Bind, Source, with_view};
