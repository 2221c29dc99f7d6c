/** Which parts of a clip were heard: disjoint intervals in seconds, in rising order. */
export type Interval = readonly [start: number, end: number];

/** Returns the intervals with one more, merged where they touch. */
export function add(intervals: readonly Interval[], start: number, end: number): Interval[] {
  if (!(end > start)) return [...intervals];
  const merged: Interval[] = [];
  for (const [s, e] of [...intervals, [start, end] as const].sort((x, y) => x[0] - y[0])) {
    const last = merged.at(-1);
    if (last && s <= last[1]) merged[merged.length - 1] = [last[0], Math.max(last[1], e)];
    else merged.push([s, e]);
  }
  return merged;
}

/** Returns the seconds covered; what was heard twice counts once. */
export function total(intervals: readonly Interval[]): number {
  return intervals.reduce((sum, [start, end]) => sum + end - start, 0);
}
