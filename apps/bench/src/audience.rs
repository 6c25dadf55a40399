//! [`Audience`]: the recipients of a load's messages.

/// The recipients of a load's messages. Every connection is in one group, and every message is for one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// All connections: one group.
    Broadcast,
    /// One user, each in turn: as many groups as users.
    User { users: u32 },
    /// One topic, each in turn: as many groups as topics, over which the users are distributed.
    Topic { topics: u32 },
}

impl Audience {
    /// Returns the number of groups.
    pub(crate) fn groups(self) -> u32 {
        match self {
            Self::Broadcast => 1,
            Self::User { users } => users,
            Self::Topic { topics } => topics,
        }
    }

    /// Returns the group of a user's connections. Users count from 0 here.
    pub(crate) fn group(self, user: u32) -> u32 {
        match self {
            Self::Broadcast => 0,
            Self::User { .. } => user,
            Self::Topic { topics } => user % topics,
        }
    }

    /// Returns the topic of a user, for tokens that name one.
    pub(crate) fn topic(self, user: u32) -> Option<String> {
        match self {
            Self::Topic { .. } => Some(topic(self.group(user))),
            Self::Broadcast | Self::User { .. } => None,
        }
    }

    /// Returns the fields of realtime's publish API for a message to a group; `user` is the id of its first user.
    pub(crate) fn target(self, group: u32, user: &str) -> String {
        match self {
            Self::Broadcast => r#""broadcast":true"#.into(),
            Self::User { .. } if user.parse::<i64>().is_ok() => format!(r#""userIds":[{user}]"#),
            Self::User { .. } => format!(r#""userIds":["{user}"]"#),
            Self::Topic { .. } => format!(r#""topics":["{}"]"#, topic(group)),
        }
    }
}

fn topic(group: u32) -> String {
    format!("bench:{group}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_the_connections_of_its_group() {
        let topics = Audience::Topic { topics: 100 };
        assert_eq!((topics.group(250), topics.topic(250).as_deref()), (50, Some("bench:50")));
        assert_eq!(topics.target(50, "51"), r#""topics":["bench:50"]"#);
        let user = Audience::User { users: 10 };
        assert_eq!((user.groups(), user.group(9), user.topic(9)), (10, 9, None));
        assert_eq!(user.target(9, "10"), r#""userIds":[10]"#);
        assert_eq!(user.target(9, "ten"), r#""userIds":["ten"]"#);
        assert_eq!(Audience::Broadcast.group(7), 0);
    }
}
