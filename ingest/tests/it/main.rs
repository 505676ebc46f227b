//! The collector as its clients see it: a real server on a real socket, over the embedded log.

mod collecting;
mod cors;
mod events;
mod hostile;
mod limiting;
mod pixel;
mod plausible;
mod salts;
mod spooling;
mod stopping;
mod support;
mod visitors;
