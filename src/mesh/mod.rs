//! mesh (in the making).
