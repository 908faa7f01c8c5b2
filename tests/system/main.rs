//! Whole-system tests: one binary, one module a theme.

mod docs;
mod golden;
mod parity;
mod quantization;
mod ready;
