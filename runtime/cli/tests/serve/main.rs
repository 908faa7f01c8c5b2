//! `serve` over loopback, as clients of every kind meet it.

mod answers;
mod hostile;
mod lasting;
mod learned;
mod server;
