//! The C library. [`smalti.h`](../smalti.h) is written from the documentation and the signatures in [`model`],
//! [`session`], [`bank`], [`anomaly`], [`learned`], [`codes`] and [`status`]; `tests/header.rs` holds it against them.
//!
//! Every entry runs inside [`border::entry`], which catches panics and keeps the message of a failure. What C holds
//! are numbers that [`handles`] looks up, never addresses: a closed or foreign handle is an error code. All `unsafe`
//! code is in [`border`], which checks and then reads or writes what a pointer points to, and in the calls of that.

#![allow(non_camel_case_types, reason = "C's names for C's types")]

pub mod anomaly;
pub mod bank;
pub mod codes;
pub mod learned;
pub mod model;
pub mod session;
pub mod status;

mod border;
mod handles;
#[cfg(feature = "panic-injection")]
pub mod injection;
