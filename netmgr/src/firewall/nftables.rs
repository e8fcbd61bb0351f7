//! STUB
use crate::firewall::mend::Goal;
use crate::model::Model;
use crate::plan::Batch;
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    pub v4: bool,
    pub v6: bool,
}
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundTable;
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mending {
    pub forward: String,
    pub inverse: String,
    pub notes: Vec<String>,
}
pub fn delta(_: &Model, _: &Model) -> Option<Batch> {
    None
}
pub fn parse(_: &str) -> Result<FoundTable, String> {
    Err("x".into())
}
pub fn mend(_: Option<&FoundTable>, _: &Model, _: Guard, _: Goal) -> Mending {
    Mending::default()
}
