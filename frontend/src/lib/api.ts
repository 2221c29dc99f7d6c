import type { Interval } from './heard';

export type Choice = 'a' | 'b' | 'tie' | 'both_bad' | 'cannot_play';

/** What the server says of a pair; model names are in it only after the vote. */
export interface PairView {
  id: string;
  prompt: string;
  state: 'queued' | 'running' | 'ready' | 'failed';
  /** Pairs ahead in the queue. */
  position?: number | null;
  /** Seconds since a worker began with it. */
  elapsed?: number | null;
  /** Seconds that recent pairs took. */
  expected?: number | null;
  error?: string | null;
  assignment?: Assignment | null;
  vote?: VoteView | null;
}

export interface Assignment {
  id: string;
  a: string;
  b: string;
  duration: number;
  /** Seconds of each clip to be heard before a vote counts. */
  min_heard: number;
}

export interface VoteView {
  choice: Choice;
  models: { a: string; b: string };
}

export interface VoteBody {
  assignment: string;
  choice: Choice;
  heard_a: readonly Interval[];
  heard_b: readonly Interval[];
  key: string;
}

/** The server refused; the message is a sentence for the user. */
export class Refusal extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }

  /** Whether the same request may succeed later. */
  get passing(): boolean {
    return this.status >= 500 || this.status === 429;
  }
}

export const getSuggestions = () => request<{ prompts: string[] }>('/api/suggestions');
export const getPair = (id: string) => request<PairView>(`/api/pairs/${encodeURIComponent(id)}`);
export const makePair = (prompt: string) => request<PairView>('/api/pairs', { prompt });
export const sendVote = (vote: VoteBody) => request<VoteView>('/api/votes', vote);

async function request<T>(path: string, body?: unknown): Promise<T> {
  const response = await fetch(
    path,
    body === undefined
      ? undefined
      : { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) },
  );
  if (response.ok) return (await response.json()) as T;
  const answer = (await response.json().catch(() => ({}))) as { error?: string };
  throw new Refusal(answer.error ?? `The server answered ${response.status}.`, response.status);
}
