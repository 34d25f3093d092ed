//! What the code promises about its own shape, checked against the source: rooms, circles, form.

mod circles;
mod form;
mod rooms;
mod source;
