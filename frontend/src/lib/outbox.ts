import { Refusal, sendVote, type VoteBody, type VoteView } from './api';

const STORAGE_KEY = 'musicrl.unsent-votes';
const LONGEST_WAIT_MS = 15_000;

/**
 * Sends a vote until the server has it. It waits in local storage meanwhile, so it survives a reload, and carries
 * its idempotency key, so that it counts once however often it is sent.
 *
 * @param vote what to send
 * @param delayed called at each failed attempt that will be repeated
 * @throws Refusal when the server will never take it
 */
export async function deliver(vote: VoteBody, delayed: () => void = () => undefined): Promise<VoteView> {
  write([...unsent().filter((other) => other.key !== vote.key), vote]);
  for (let attempt = 0; ; attempt++) {
    try {
      const answer = await sendVote(vote);
      forget(vote);
      return answer;
    } catch (error) {
      if (error instanceof Refusal && !error.passing) {
        forget(vote);
        throw error;
      }
    }
    delayed();
    await pause(Math.min(500 * 2 ** attempt, LONGEST_WAIT_MS));
  }
}

/** Returns a key that no other vote has. `crypto.randomUUID` is missing on plain HTTP from another machine. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Votes of this browser that the server has not confirmed. */
export function unsent(): VoteBody[] {
  try {
    return JSON.parse(localStorage.getItem(STORAGE_KEY) ?? '[]') as VoteBody[];
  } catch {
    return [];
  }
}

function forget(vote: VoteBody): void {
  write(unsent().filter((other) => other.key !== vote.key));
}

function write(votes: readonly VoteBody[]): void {
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify(votes));
  } catch {
    // Storage is off or full: the vote lives in this page only.
  }
}

/** Waits, or less when the network comes back. */
function pause(milliseconds: number): Promise<void> {
  return new Promise((done) => {
    const finish = () => {
      clearTimeout(timer);
      window.removeEventListener('online', finish);
      done();
    };
    const timer = setTimeout(finish, milliseconds);
    window.addEventListener('online', finish);
  });
}
