//! How many descriptors the process may have. Service managers start with 1024 and leave the rest for the
//! asking.

/// Raises the soft limit to the hard one and returns what is allowed now, if the system tells.
#[cfg(unix)]
#[allow(unsafe_code)]
pub fn raise() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write the struct that lives on this stack for their whole duration.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return None;
        }
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raised) == 0 {
            limit = raised;
        }
    }
    Some(limit.rlim_cur)
}

#[cfg(not(unix))]
pub fn raise() -> Option<u64> {
    None
}
