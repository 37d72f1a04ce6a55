//! Messages, delays and forced writes of one transaction without faults.
