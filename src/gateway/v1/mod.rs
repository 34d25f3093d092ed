//! Calls under the old V1 prefix where V2 is the route: what differs is translated in the bytes as they are,
//! and nothing is written anew that need not be (migration notice, "Gen API V1/V2 Endpoints Comparison").

mod configuration;
mod json_text;
mod order_fields;
mod scan_request;

pub use configuration::with_members;
pub use order_fields::FieldStripper;
pub use scan_request::translate;
