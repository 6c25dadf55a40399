/** Marks the link to the section that is in view, where the sections are below each other. */
export function mountJump() {
  const links = [...document.querySelectorAll('.jump a')];
  const sections = links.map((link) => document.querySelector(link.hash));
  const inView = new Set();
  const observer = new IntersectionObserver(
    (changes) => {
      for (const { target, isIntersecting } of changes) {
        if (isIntersecting) inView.add(target);
        else inView.delete(target);
      }
      const current = sections.findLast((section) => inView.has(section));
      links.forEach((link, index) => {
        if (sections[index] === current) link.setAttribute('aria-current', 'true');
        else link.removeAttribute('aria-current');
      });
    },
    { rootMargin: '-40% 0% -40% 0%' },
  );
  for (const section of sections) observer.observe(section);
  return () => observer.disconnect();
}
