//! The command as its users have it: the built program, real files, and what it prints.

mod bad_input;
mod demo;
mod heal;
mod interface;
mod lab;
