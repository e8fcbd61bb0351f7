//! What works otherwise than in Docker, on purpose: a command or flag as in `docker.txt`, and how. It still has its cell.

pub const DIFFERENCES: &[(&str, &str)] = &[];
