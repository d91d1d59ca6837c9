//! Work without a connection.

use super::connection::Token;
use super::member::{MAIN, Member};

#[derive(Debug)]
pub struct Parcel(pub Token);

#[derive(Debug)]
pub enum Work {
    Call,
    Desk,
    Advance(Member),
    Signals,
}

impl Work {
    pub fn member(&self) -> Option<Member> {
        match self {
            Self::Call | Self::Desk => None,
            Self::Advance(member) => Some(*member),
            Self::Signals => Some(MAIN),
        }
    }
}

pub enum Served {
    Whole,
    Begun(Member),
    Handled,
    TakenBack,
}

pub struct Letter {
    pub from: Member,
    pub token: Token,
    pub served: Served,
    pub next: Option<Token>,
}
