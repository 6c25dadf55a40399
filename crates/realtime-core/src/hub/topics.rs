//! Topics that clients ask for: [`Hub::decide_topics`].

use super::Hub;
use crate::{
    Principal, Topic,
    auth::{RefusedTopic, TopicDecision, TopicGrant, TopicRefusal},
    settings::Limits,
    user::UserRef,
};

impl Hub {
    /// Decides which of the topics that a client names it may subscribe to: those that its login names, its user's own,
    /// and those that the [policy](crate::HubBuilder::topic_policy) grants. `present` are the topics that its session is
    /// in; it stays in them.
    ///
    /// A session may be in `limits.maxTopicsPerSession` topics besides `all` and its user's own. Once as many of one request
    /// have been refused, the others are refused unseen.
    pub async fn decide_topics(
        &self,
        principal: &Principal,
        present: &[Topic],
        names: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> TopicDecision {
        let limit = self.0.registry.node.limits.load().max_topics_per_session;
        let (mut decision, mut refusals) = (TopicDecision::default(), 0);
        // At a handshake they are the login's, which gives named topics only.
        let is_held = |topic: &Topic| topic.is_named() || !principal.topics.contains(topic);
        let is_present = |topic: &Topic| present.contains(topic) && is_held(topic);
        // A session keeps another user's topic as it does a named one.
        let is_counted = |topic: &Topic| !topic.is_all() && !is_own(principal, topic);
        let mut count = present.iter().filter(|topic| is_counted(topic) && is_held(topic)).count();
        for name in names {
            let name = name.as_ref();
            let decided = match Topic::new(name) {
                Ok(topic) if decision.granted.contains(&topic) => continue,
                Ok(topic) if is_present(&topic) => Ok(topic),
                Ok(_) if Limits::exceeds(refusals + 1, limit) || Limits::exceeds(count + 1, limit) => {
                    self.0.registry.node.metrics.topics_refused.add(1);
                    Err("too many topics".to_owned())
                }
                Ok(topic) => match self.may_subscribe(principal, &topic).await {
                    Ok(grant) => {
                        count += usize::from(is_counted(&topic));
                        decision.after.extend(grant.after.map(|after| (topic.clone(), after)));
                        Ok(topic)
                    }
                    Err(refusal) => {
                        refusals += 1;
                        Err(refusal.to_string())
                    }
                },
                Err(error) => Err(error.to_string()),
            };
            match decided {
                Ok(topic) => decision.granted.push(topic),
                Err(reason) => decision.refused.push(RefusedTopic { topic: name.to_owned(), reason }),
            }
        }
        decision
    }

    async fn may_subscribe(&self, principal: &Principal, topic: &Topic) -> Result<TopicGrant, TopicRefusal> {
        let is_among_its_topics = || topic.is_named() && principal.topics.contains(topic);
        let is_granted = || principal.grants.iter().any(|pattern| pattern.includes(topic));
        if is_own(principal, topic) || is_among_its_topics() || is_granted() {
            return Ok(TopicGrant::default());
        }
        match &self.0.topic_policy {
            Some(policy) => policy.may_subscribe(principal, topic).await,
            None => Err(TopicRefusal::default()),
        }
    }
}

fn is_own(principal: &Principal, topic: &Topic) -> bool {
    topic.as_user() == Some(UserRef::from(&principal.user))
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use futures_core::future::BoxFuture;

    use super::*;
    use crate::{
        Settings,
        auth::{TopicPattern, TopicPolicy},
    };

    fn topic(name: &str) -> Topic {
        Topic::new(name).expect("a name")
    }

    fn refused(decision: &TopicDecision) -> Vec<(&str, &str)> {
        decision.refused.iter().map(|refused| (&*refused.topic, &*refused.reason)).collect()
    }

    #[tokio::test]
    async fn without_a_policy_a_client_has_what_its_login_names() {
        let hub = Hub::builder().start().unwrap();
        let mut principal = Principal::new(7.into(), "t");
        // A login gives named topics only.
        principal.topics = vec![topic("role:buyer"), topic("user:8"), topic("all")];
        principal.grants = vec![TopicPattern::new("order:*").unwrap()];
        let names = ["role:buyer", "order:7", "user:7", "user:8", "all", "presence", "order:7", "", "a b"];
        let decision = hub.decide_topics(&principal, &[topic("presence")], names).await;
        assert_eq!(
            decision.granted,
            [topic("role:buyer"), topic("order:7"), topic("user:7"), topic("presence")],
            "it stays in what it is in"
        );
        let at_handshake = hub.decide_topics(&principal, &principal.topics, names).await;
        assert_eq!(at_handshake.granted, [topic("role:buyer"), topic("order:7"), topic("user:7")]);
        assert_eq!(
            refused(&decision),
            [
                ("user:8", "not allowed"),
                ("all", "not allowed"),
                ("", "a topic must not be empty"),
                ("a b", "topic \"a b\" holds white space or a control character")
            ]
        );
    }

    /// Grants what belongs to the user, after a look elsewhere.
    struct Owned;

    impl TopicPolicy for Owned {
        fn may_subscribe<'a>(
            &'a self,
            principal: &'a Principal,
            topic: &'a Topic,
        ) -> BoxFuture<'a, Result<TopicGrant, TopicRefusal>> {
            Box::pin(async move {
                tokio::task::yield_now().await;
                if topic.as_str().starts_with(&format!("of:{}:", principal.user)) {
                    Ok(TopicGrant::default())
                } else {
                    Err(TopicRefusal::new("not yours"))
                }
            })
        }
    }

    #[tokio::test]
    async fn a_policy_decides_about_all_others_and_gives_the_reason() {
        let hub = Hub::builder().topic_policy(Owned).start().unwrap();
        let principal = Principal::new(7.into(), "t");
        let decision = hub.decide_topics(&principal, &[], ["of:7:a", "of:8:a", "user:8"]).await;
        assert_eq!(decision.granted, [topic("of:7:a")]);
        assert_eq!(refused(&decision), [("of:8:a", "not yours"), ("user:8", "not yours")]);
    }

    #[tokio::test]
    async fn a_session_is_in_a_limited_number_of_topics() {
        let mut settings = Settings::default();
        settings.limits.max_topics_per_session = 3;
        let any = |_: &Principal, _: &Topic| true;
        let hub = Hub::builder().settings(settings).topic_policy(any).start().unwrap();
        let principal = Principal::new(7.into(), "t");
        let present = [topic("user:7"), topic("a"), topic("b")];
        let decision = hub.decide_topics(&principal, &present, ["c", "d", "a", "b"]).await;
        assert_eq!(decision.granted, [topic("c"), topic("a"), topic("b")]);
        assert_eq!(refused(&decision), [("d", "too many topics")]);
        // Another user's topic is one as well.
        let present = [topic("user:7"), topic("all"), topic("user:8")];
        let decision = hub.decide_topics(&principal, &present, ["user:9", "user:7", "a", "user:10"]).await;
        assert_eq!(decision.granted, [topic("user:9"), topic("user:7"), topic("a")]);
        assert_eq!(refused(&decision), [("user:10", "too many topics")]);
        // A long list of what is refused does not keep the policy busy.
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counter = std::sync::Arc::clone(&asked);
        let none = move |_: &Principal, _: &Topic| {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            false
        };
        let hub = Hub::builder().topic_policy(none).start().unwrap();
        let names: Vec<String> = (0..1000).map(|number| format!("t{number}")).collect();
        assert_eq!(hub.decide_topics(&principal, &[], &names).await.refused.len(), 1000);
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 100);
    }
}
