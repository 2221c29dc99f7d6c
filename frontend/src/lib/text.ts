/** Every sentence of the page, in one place. */
import type { Choice } from './api';

export const text = {
  tagline: 'listen and choose',
  title: {
    compose: 'musicrl · listen and choose',
    waiting: 'Making two clips · musicrl',
    listen: 'Two clips to compare · musicrl',
    failed: 'Not made · musicrl',
  },
  newPrompt: 'New prompt',
  help: 'Help and shortcuts',
  compose: {
    heading: 'What would you like to hear?',
    lead: 'Two short clips are made from your words. Listen to both and give one the trophy.',
    label: 'Describe the music',
    placeholder: 'a slow sad waltz on the accordion',
    submit: 'Make two clips',
    surprise: 'Surprise me',
    suggestions: 'Or start from one of these',
    empty: 'Write a few words about the music first.',
    tooLong: (limit: number) => `At most ${limit.toLocaleString('en')} characters, please.`,
    left: (left: number) => `${left} characters left`,
  },
  waiting: {
    heading: 'Your two clips are being made',
    queued: (ahead: number) =>
      ahead === 0 ? 'Next in line.' : ahead === 1 ? '1 pair ahead of yours.' : `${ahead} pairs ahead of yours.`,
    running: 'Composing both clips …',
    usual: (seconds: number) =>
      seconds < 90
        ? `This usually takes about ${Math.max(1, Math.round(seconds))} s.`
        : `This usually takes about ${Math.round(seconds / 60)} minutes.`,
    leave: 'You can leave this page open; both clips appear together.',
    offline: 'No answer from the server; trying again …',
  },
  failed: { heading: 'These clips could not be made', retry: 'Try again' },
  missing: { heading: 'There is no such pair', body: 'It may belong to another browser.' },
  listen: {
    heading: 'Which one do you prefer?',
    loading: 'Loading both clips …',
    play: (name: string) => `Play clip ${name}`,
    pause: (name: string) => `Pause clip ${name}`,
    position: (name: string) => `Position in clip ${name}`,
    of: (now: string, end: string) => `${now} of ${end}`,
    more: (seconds: number) => `Listen ${seconds} s more to vote`,
    enough: 'Heard',
    broken: 'This clip could not be loaded.',
    silent: 'Your browser gives no sound. Check its sound settings, then press play again.',
    gate: 'Listen to a little of both clips, then choose.',
    ready: 'Choose whenever you are ready.',
  },
  vote: {
    trophy: (name: string) => `Trophy to ${name}`,
    group: 'Your choice',
    tie: 'About the same',
    both_bad: 'Both bad',
    cannot_play: 'Cannot play',
    saving: 'Saving your vote …',
    delayed: 'Your vote is kept here and sent again until the server has it.',
  },
  done: {
    saved: 'Your vote is saved.',
    madeBy: 'Made by',
    again: 'Same prompt again',
    next: 'Next pair',
    verdict: {
      a: 'You gave the trophy to A',
      b: 'You gave the trophy to B',
      tie: 'About the same to you',
      both_bad: 'Both bad, you say',
      cannot_play: 'You could not play them',
    } satisfies Record<Choice, string>,
  },
  shortcuts: {
    heading: 'Keyboard shortcuts',
    note: 'They work everywhere but in the text field.',
    on: 'Use single-key shortcuts',
    close: 'Close',
    rows: [
      ['1', 'Play or pause clip A'],
      ['2', 'Play or pause clip B'],
      ['Space', 'Play or pause the clip heard last'],
      ['← →', 'Back or forward 2 seconds'],
      ['A', 'Trophy to A'],
      ['B', 'Trophy to B'],
      ['T', 'About the same'],
      ['X', 'Both bad'],
      ['C', 'Cannot play'],
      ['N', 'Next pair, after the vote'],
      ['?', 'This help'],
    ],
    stored: 'What is stored',
    storedBody:
      'Your prompt, the two clips, your choice, how long each clip sounded, and a random number that stands for this browser. No name, no address.',
  },
};

/** Returns seconds as m:ss. */
export function clock(seconds: number): string {
  const whole = Math.floor(seconds + 0.05);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}
