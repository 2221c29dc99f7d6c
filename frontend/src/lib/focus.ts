/** Attachment that moves the focus to what has replaced the element that had it, so that a screen reader goes on there. */
export function takeFocus(node: HTMLElement): void {
  if (document.activeElement === null || document.activeElement === document.body) node.focus({ preventScroll: true });
}
