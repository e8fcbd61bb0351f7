//! A behaviour, and what it shows of Docker's command line.

/// One behaviour of the command line.
pub struct Cell {
    /// `a_memory_limit_kills_and_is_told`
    pub name: &'static str,
    /// What it shows to work, as people would look it up: `run --memory`, `update --memory`, `stats`. `run` stands for `create` too.
    pub covers: &'static [&'static str],
    /// Makes a host of its own; a panic is a failure.
    pub run: fn(),
}

/// `cell!(the_function, "run --memory", "run -m")`: named after the function.
#[macro_export]
macro_rules! cell {
    ($run:ident $(, $covers:literal)* $(,)?) => {
        $crate::cell::Cell {
            name: stringify!($run),
            covers: &[$($covers),*],
            run: $run,
        }
    };
}
