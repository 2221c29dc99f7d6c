import { decode, Engine, type Voice } from './engine';
import { add, total, type Interval } from './heard';

export type Side = 'a' | 'b';
export const SIDES: readonly Side[] = ['a', 'b'];

/** One of the two clips: where it stands and what of it was heard. */
export class Track {
  buffer = $state.raw<AudioBuffer>();
  failed = $state(false);
  position = $state(0);
  /** What was heard until the last pause or seek. */
  #past = $state.raw<readonly Interval[]>([]);
  /** Where the part that sounds now began, or undefined in silence. */
  #from = $state<number>();

  get duration(): number {
    return this.buffer?.duration ?? 0;
  }

  get heard(): readonly Interval[] {
    return this.#from === undefined ? this.#past : add(this.#past, this.#from, this.position);
  }

  get heardSeconds(): number {
    return total(this.heard);
  }

  begin(): void {
    this.#from = this.position;
  }

  end(position: number): void {
    this.position = position;
    this.#past = this.heard;
    this.#from = undefined;
  }
}

/** Two clips of which one sounds at a time; each keeps its own place. */
export class Player {
  readonly tracks: Record<Side, Track> = { a: new Track(), b: new Track() };
  playing = $state<Side>();
  /** The clip that the space bar and the arrows speak to. */
  active = $state<Side>('a');
  /** The browser gave no sound at the last attempt. */
  silent = $state(false);
  #engine = new Engine();
  #voice: Voice | undefined;
  #turn = 0;

  async load(urls: Record<Side, string>): Promise<void> {
    await Promise.all(
      SIDES.map(async (side) => {
        try {
          const response = await fetch(urls[side]);
          if (!response.ok) throw new Error(String(response.status));
          this.tracks[side].buffer = await decode(await response.arrayBuffer());
        } catch {
          this.tracks[side].failed = true;
        }
      }),
    );
  }

  async play(side: Side): Promise<void> {
    this.pause();
    const track = this.tracks[side];
    if (!track.buffer) return;
    this.active = side;
    if (track.position >= track.duration - 0.05) track.position = 0;
    const turn = ++this.#turn;
    let voice: Voice;
    try {
      voice = await this.#engine.play(track.buffer, track.position, (finished) => this.#ended(turn, finished));
    } catch {
      this.silent = true;
      return;
    }
    // Someone pressed another key while the context woke up.
    if (turn !== this.#turn) {
      voice.stop();
      return;
    }
    this.silent = false;
    this.#voice = voice;
    this.playing = side;
    track.begin();
    requestAnimationFrame(() => this.#tick(turn));
  }

  pause(): void {
    this.#turn++;
    if (this.playing && this.#voice) this.tracks[this.playing].end(this.#voice.position());
    this.#voice?.stop();
    this.#voice = undefined;
    this.playing = undefined;
  }

  toggle(side: Side): void {
    if (this.playing === side) this.pause();
    else void this.play(side);
  }

  seek(side: Side, position: number): void {
    const track = this.tracks[side];
    const wasPlaying = this.playing === side;
    if (wasPlaying) this.pause();
    track.position = Math.min(Math.max(position, 0), track.duration);
    this.active = side;
    if (wasPlaying && track.position < track.duration) void this.play(side);
  }

  #tick(turn: number): void {
    if (turn !== this.#turn || !this.playing || !this.#voice) return;
    this.tracks[this.playing].position = this.#voice.position();
    requestAnimationFrame(() => this.#tick(turn));
  }

  #ended(turn: number, finished: boolean): void {
    if (turn !== this.#turn || !this.playing) return;
    const track = this.tracks[this.playing];
    track.end(finished ? track.duration : (this.#voice?.position() ?? track.position));
    if (finished) track.position = 0;
    this.#voice = undefined;
    this.playing = undefined;
    this.#turn++;
  }
}
