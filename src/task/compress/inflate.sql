-- gzip (RFC 1952) and deflate (RFC 1951) in PL/pgSQL, so that stock PostgreSQL reads compressed text without an extension.
-- Anything but a complete, intact stream is an error; no wrong text is ever returned.
-- No backslash anywhere: a session's standard_conforming_strings changes nothing. {gunzip} becomes a qualified name, and {schema} a
-- string. One statement costs about 100 ns, so that work per symbol is what counts, and work per byte is avoided.

-- Reads gzip, or the form with a dictionary: a byte 1, a deflate stream whose window begins with the dictionary, the dictionary's key (16
-- bytes), and the length of the text (4 bytes, the lowest first). That form has no checksum: the hash of the text is one.
--
-- It runs with the rights of the table's owner, and the schema may be another role's, or another schema of that name. So it is one function, which
-- calls none but those of pg_catalog.
CREATE OR REPLACE FUNCTION {gunzip}(gz bytea, hash bytea, encoding text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 1000000 SET search_path = pg_catalog, pg_temp AS $pgtend$
DECLARE
    length_base CONSTANT int[] := '{3,4,5,6,7,8,9,10,11,13,15,17,19,23,27,31,35,43,51,59,67,83,99,115,131,163,195,227,258}';
    length_bits CONSTANT int[] := '{0,0,0,0,0,0,0,0,1,1,1,1,2,2,2,2,3,3,3,3,4,4,4,4,5,5,5,5,0}';
    distance_base CONSTANT int[] := '{1,2,3,4,5,7,9,13,17,25,33,49,65,97,129,193,257,385,513,769,1025,1537,2049,3073,4097,6145,8193,12289,16385,24577}';
    distance_bits CONSTANT int[] := '{0,0,0,0,1,1,2,2,3,3,4,4,5,5,6,6,7,7,8,8,9,9,10,10,11,11,12,12,13,13}';
    lengths_order CONSTANT int[] := '{16,17,18,0,8,7,9,6,10,5,11,4,12,3,13,2,14,1,15}';
    crc_table CONSTANT bigint[] := '{
        0,1996959894,3993919788,2567524794,124634137,1886057615,3915621685,2657392035,249268274,2044508324,3772115230,
        2547177864,162941995,2125561021,3887607047,2428444049,498536548,1789927666,4089016648,2227061214,450548861,1843258603,
        4107580753,2211677639,325883990,1684777152,4251122042,2321926636,335633487,1661365465,4195302755,2366115317,997073096,
        1281953886,3579855332,2724688242,1006888145,1258607687,3524101629,2768942443,901097722,1119000684,3686517206,
        2898065728,853044451,1172266101,3705015759,2882616665,651767980,1373503546,3369554304,3218104598,565507253,1454621731,
        3485111705,3099436303,671266974,1594198024,3322730930,2970347812,795835527,1483230225,3244367275,3060149565,
        1994146192,31158534,2563907772,4023717930,1907459465,112637215,2680153253,3904427059,2013776290,251722036,2517215374,
        3775830040,2137656763,141376813,2439277719,3865271297,1802195444,476864866,2238001368,4066508878,1812370925,453092731,
        2181625025,4111451223,1706088902,314042704,2344532202,4240017532,1658658271,366619977,2362670323,4224994405,
        1303535960,984961486,2747007092,3569037538,1256170817,1037604311,2765210733,3554079995,1131014506,879679996,
        2909243462,3663771856,1141124467,855842277,2852801631,3708648649,1342533948,654459306,3188396048,3373015174,
        1466479909,544179635,3110523913,3462522015,1591671054,702138776,2966460450,3352799412,1504918807,783551873,3082640443,
        3233442989,3988292384,2596254646,62317068,1957810842,3939845945,2647816111,81470997,1943803523,3814918930,2489596804,
        225274430,2053790376,3826175755,2466906013,167816743,2097651377,4027552580,2265490386,503444072,1762050814,4150417245,
        2154129355,426522225,1852507879,4275313526,2312317920,282753626,1742555852,4189708143,2394877945,397917763,1622183637,
        3604390888,2714866558,953729732,1340076626,3518719985,2797360999,1068828381,1219638859,3624741850,2936675148,
        906185462,1090812512,3747672003,2825379669,829329135,1181335161,3412177804,3160834842,628085408,1382605366,3423369109,
        3138078467,570562233,1426400815,3317316542,2998733608,733239954,1555261956,3268935591,3050360625,752459403,1541320221,
        2607071920,3965973030,1969922972,40735498,2617837225,3943577151,1913087877,83908371,2512341634,3803740692,2075208622,
        213261112,2463272603,3855990285,2094854071,198958881,2262029012,4057260610,1759359992,534414190,2176718541,4139329115,
        1873836001,414664567,2282248934,4279200368,1711684554,285281116,2405801727,4167216745,1634467795,376229701,2685067896,
        3608007406,1308918612,956543938,2808555105,3495958263,1231636301,1047427035,2932959818,3654703836,1088359270,
        936918000,2847714899,3736837829,1202900863,817233897,3183342108,3401237130,1404277552,615818150,3134207493,3453421203,
        1423857449,601450431,3009837614,3294710456,1567103746,711928724,3020668471,3272380065,1510334235,755167117}';
    one_byte CONSTANT bytea := decode('00', 'hex');
    -- This also detoasts it once: a parameter that stays toasted would be fetched again for each byte.
    input CONSTANT bytea := gz || decode('', 'hex');
    size CONSTANT int := length(input);
    next int := 0;              -- The next byte of the input.
    bits bigint := 0;           -- Bits that were read and not yet used, the first one lowest.
    held int := 0;              -- How many.
    finished bytea := decode('', 'hex');   -- Members before this one.
    -- What this member has become, in three pieces, as appending copies: what no distance reaches any more, then at least
    -- 32 KiB, then the end.
    settled bytea;
    output bytea;
    output_size int;
    tail bytea;
    -- Of the form with a dictionary.
    has_dictionary CONSTANT boolean := CASE WHEN size > 0 THEN get_byte(input, 0) = 1 ELSE false END;
    key bytea;
    name text;
    dictionary_size int := 0;
    flags int; is_last boolean; kind int; literals int[]; distances int[]; lengths int[];
    symbol int; amount int; distance int; origin int; part bytea; first int; index int; code int; i int; j int; crc bigint;
    -- A canonical Huffman code as one array. From 0: what the next 9 bits mean, as symbol * 16 + length, 0 where the code is
    -- longer. From 512: how many codes have each length. From 528: the symbols in the order of their codes.
    codes int[];
    coded int[];                -- How long the code of each symbol is.
    place int[]; width int; room int; reversed int; carry int; slot int; entry int;
BEGIN
    IF gz IS NULL THEN
        RETURN NULL;
    END IF;
    <<members>> LOOP
        IF next + 18 > size THEN
            RAISE EXCEPTION 'corrupt gzip data: cut short' USING ERRCODE = 'data_corrupted';
        END IF;
        settled := decode('', 'hex');
        output := settled;
        tail := settled;
        bits := 0;
        held := 0;
        IF has_dictionary THEN
            IF size < 23 THEN
                RAISE EXCEPTION 'corrupt gzip data: cut short' USING ERRCODE = 'data_corrupted';
            END IF;
            next := 1;
            key := substring(input FROM size - 19 FOR 16);
            name := format('%I.%I', {schema}, 'pgtend_dictionary_' || left(encode(sha256(key), 'hex'), 16));
            -- Its function is read, not called: the reader chooses the name.
            SELECT decode(split_part(split_part(prosrc, 'decode(''', 2), '''', 1), 'base64') INTO part FROM pg_proc
                WHERE oid = to_regprocedure(name || '(pg_catalog.bytea)') AND pg_get_userbyid(proowner) = current_user;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'the dictionary of this text is missing: there is no function %(bytea) of role %', name, current_user
                    USING ERRCODE = 'undefined_function', HINT = 'Without it the text cannot be read: restore the function from a dump of this database.';
            END IF;
            -- The server has no XOR for bytea, but for bits.
            output := substring(varbit_send(('x' || encode(part, 'hex'))::varbit # ('x' || encode((
                SELECT string_agg(sha512(key || int4send(block)), decode('', 'hex') ORDER BY block) FROM generate_series(1, length(part) / 64) block),
                'hex'))::varbit) FROM 5);
            dictionary_size := length(output);
        ELSE
            IF get_byte(input, next) <> 31 OR get_byte(input, next + 1) <> 139 OR get_byte(input, next + 2) <> 8 THEN
                RAISE EXCEPTION 'corrupt gzip data: no gzip header' USING ERRCODE = 'data_corrupted';
            END IF;
            flags := get_byte(input, next + 3);
            next := next + 10;
            IF flags & 224 <> 0 THEN
                RAISE EXCEPTION 'corrupt gzip data: unknown flags' USING ERRCODE = 'data_corrupted';
            END IF;
            IF flags & 4 <> 0 THEN
                next := next + 2 + get_byte(input, next) + 256 * get_byte(input, next + 1);
            END IF;
            -- A file's name, a comment.
            FOR i IN 1..(flags >> 3 & 1) + (flags >> 4 & 1) LOOP
                LOOP
                    IF next + 8 >= size THEN
                        RAISE EXCEPTION 'corrupt gzip data: cut short' USING ERRCODE = 'data_corrupted';
                    END IF;
                    next := next + 1;
                    EXIT WHEN get_byte(input, next - 1) = 0;
                END LOOP;
            END LOOP;
            next := next + (flags & 2);
        END IF;
        output_size := dictionary_size;

        <<blocks>> LOOP
            -- The trailer has eight bytes, so that a complete stream never gets here.
            IF held < 20 THEN
                IF next + 4 > size THEN
                    RAISE EXCEPTION 'corrupt gzip data: cut short' USING ERRCODE = 'data_corrupted';
                END IF;
                bits := bits | ((get_byte(input, next) + 256 * get_byte(input, next + 1) + 65536 * get_byte(input, next + 2)
                    + 16777216 * get_byte(input, next + 3)::bigint) << held);
                next := next + 4;
                held := held + 32;
            END IF;
            is_last := bits & 1 = 1;
            kind := bits >> 1 & 3;
            bits := bits >> 3;
            held := held - 3;
            IF kind = 3 THEN
                RAISE EXCEPTION 'corrupt gzip data: unknown kind of block' USING ERRCODE = 'data_corrupted';
            ELSIF kind = 0 THEN
                -- From the next whole byte on.
                next := next - held / 8;
                bits := 0;
                held := 0;
                IF next + 4 > size THEN
                    RAISE EXCEPTION 'corrupt gzip data: cut short' USING ERRCODE = 'data_corrupted';
                END IF;
                amount := get_byte(input, next) + 256 * get_byte(input, next + 1);
                IF amount + get_byte(input, next + 2) + 256 * get_byte(input, next + 3) <> 65535 OR next + 4 + amount > size THEN
                    RAISE EXCEPTION 'corrupt gzip data: a stored block''s length' USING ERRCODE = 'data_corrupted';
                END IF;
                output := output || tail || substring(input FROM next + 5 FOR amount);
                output_size := length(output);
                tail := decode('', 'hex');
                next := next + 4 + amount;
                EXIT blocks WHEN is_last;
                CONTINUE blocks;
            ELSIF kind = 1 THEN
                lengths := array_fill(8, ARRAY[144]) || array_fill(9, ARRAY[112]) || array_fill(7, ARRAY[24]) || array_fill(8, ARRAY[8])
                    || array_fill(5, ARRAY[30]);
                first := 288;
                index := 30;
            ELSE
                first := 257 + (bits & 31);
                index := 1 + (bits >> 5 & 31);
                amount := 4 + (bits >> 10 & 15);
                bits := bits >> 14;
                held := held - 14;
                IF first > 286 OR index > 30 THEN
                    RAISE EXCEPTION 'corrupt gzip data: too many codes' USING ERRCODE = 'data_corrupted';
                END IF;
                lengths := array_fill(0, ARRAY[19]);
                FOR i IN 1..amount LOOP
                    IF held < 3 THEN
                        IF next >= size THEN
                            RAISE EXCEPTION 'corrupt gzip data: cut short' USING ERRCODE = 'data_corrupted';
                        END IF;
                        bits := bits | (get_byte(input, next)::bigint << held);
                        next := next + 1;
                        held := held + 8;
                    END IF;
                    lengths[lengths_order[i] + 1] := bits & 7;
                    bits := bits >> 3;
                    held := held - 3;
                END LOOP;
            END IF;
            -- The codes of the block: if it brings its own, first that of their lengths; then that of bytes and lengths of copies; then that of distances.
            FOR which IN 2 - kind..2 LOOP
                coded := CASE which WHEN 0 THEN lengths WHEN 1 THEN lengths[1:first] ELSE lengths[first + 1:first + index] END;
                codes := array_fill(0, ARRAY[528 + array_length(coded, 1)], ARRAY[0]);
                place := array_fill(0, ARRAY[17], ARRAY[0]);
                FOREACH width IN ARRAY coded LOOP
                    codes[512 + width] := codes[512 + width] + 1;
                END LOOP;
                codes[512] := 0;
                room := 1;
                FOR i IN 1..15 LOOP
                    room := room * 2 - codes[512 + i];
                    IF room < 0 THEN
                        RAISE EXCEPTION 'corrupt gzip data: too many codes' USING ERRCODE = 'data_corrupted';
                    END IF;
                    place[i + 1] := place[i] + codes[512 + i];
                END LOOP;
                i := 0;
                FOREACH width IN ARRAY coded LOOP
                    IF width > 0 THEN
                        codes[528 + place[width]] := i;
                        place[width] := place[width] + 1;
                    END IF;
                    i := i + 1;
                END LOOP;
                -- Codes count up from their first bit, which comes first in the stream and is the lowest here.
                reversed := 0;
                slot := 528;
                FOR width IN 1..9 LOOP
                    FOR j IN 1..codes[512 + width] LOOP
                        entry := codes[slot] * 16 + width;
                        slot := slot + 1;
                        FOR i IN reversed..511 BY 1 << width LOOP
                            codes[i] := entry;
                        END LOOP;
                        carry := 1 << (width - 1);
                        WHILE reversed & carry <> 0 LOOP
                            carry := carry >> 1;
                        END LOOP;
                        reversed := CASE WHEN carry = 0 THEN 0 ELSE (reversed & (carry - 1)) + carry END;
                    END LOOP;
                END LOOP;
                IF which = 1 THEN
                    literals := codes;
                    CONTINUE;
                ELSIF which = 2 THEN
                    distances := codes;
                    CONTINUE;
                END IF;
                -- Of these codes, none is longer than 7.
                lengths := array_fill(0, ARRAY[first + index]);
                i := 1;
                WHILE i <= first + index LOOP
                    IF held < 14 THEN
                        IF next + 2 > size THEN
                            RAISE EXCEPTION 'corrupt gzip data: cut short' USING ERRCODE = 'data_corrupted';
                        END IF;
                        bits := bits | ((get_byte(input, next) + 256 * get_byte(input, next + 1))::bigint << held);
                        next := next + 2;
                        held := held + 16;
                    END IF;
                    symbol := codes[(bits & 511)::int];
                    IF symbol = 0 THEN
                        RAISE EXCEPTION 'corrupt gzip data: an unknown code' USING ERRCODE = 'data_corrupted';
                    END IF;
                    bits := bits >> (symbol & 15);
                    held := held - (symbol & 15);
                    symbol := symbol >> 4;
                    IF symbol < 16 THEN
                        lengths[i] := symbol;
                        i := i + 1;
                    ELSE
                        code := 0;
                        IF symbol = 16 THEN
                            IF i = 1 THEN
                                RAISE EXCEPTION 'corrupt gzip data: nothing to repeat' USING ERRCODE = 'data_corrupted';
                            END IF;
                            code := lengths[i - 1];
                            amount := 3 + (bits & 3);
                            bits := bits >> 2;
                            held := held - 2;
                        ELSIF symbol = 17 THEN
                            amount := 3 + (bits & 7);
                            bits := bits >> 3;
                            held := held - 3;
                        ELSE
                            amount := 11 + (bits & 127);
                            bits := bits >> 7;
                            held := held - 7;
                        END IF;
                        IF i + amount - 1 > first + index THEN
                            RAISE EXCEPTION 'corrupt gzip data: too many lengths' USING ERRCODE = 'data_corrupted';
                        END IF;
                        IF code > 0 THEN
                            FOR j IN i..i + amount - 1 LOOP
                                lengths[j] := code;
                            END LOOP;
                        END IF;
                        i := i + amount;
                    END IF;
                END LOOP;
                IF lengths[257] = 0 THEN
                    RAISE EXCEPTION 'corrupt gzip data: a block without an end' USING ERRCODE = 'data_corrupted';
                END IF;
            END LOOP;

            LOOP
                IF held < 20 THEN
                    IF next + 4 > size THEN
                        RAISE EXCEPTION 'corrupt gzip data: cut short' USING ERRCODE = 'data_corrupted';
                    END IF;
                    bits := bits | ((get_byte(input, next) + 256 * get_byte(input, next + 1) + 65536 * get_byte(input, next + 2)
                        + 16777216 * get_byte(input, next + 3)::bigint) << held);
                    next := next + 4;
                    held := held + 32;
                    IF length(tail) > 1500 THEN
                        output := output || tail;
                        output_size := length(output);
                        tail := decode('', 'hex');
                        IF output_size > 131072 THEN
                            settled := settled || substring(output FROM 1 FOR output_size - 32768);
                            output := substring(output FROM output_size - 32767);
                            output_size := 32768;
                        END IF;
                    END IF;
                END IF;
                symbol := literals[(bits & 511)::int];
                IF symbol > 0 THEN
                    bits := bits >> (symbol & 15);
                    held := held - (symbol & 15);
                    symbol := symbol >> 4;
                ELSE
                    -- Bit by bit; first: the first code of this length, index: its place among the symbols.
                    code := 0; first := 0; index := 528; symbol := -1;
                    FOR i IN 1..15 LOOP
                        code := code | (bits & 1)::int;
                        bits := bits >> 1;
                        amount := literals[512 + i];
                        IF code - first < amount THEN
                            symbol := literals[index + code - first];
                            held := held - i;
                            EXIT;
                        END IF;
                        index := index + amount;
                        first := (first + amount) << 1;
                        code := code << 1;
                    END LOOP;
                    IF symbol < 0 THEN
                        RAISE EXCEPTION 'corrupt gzip data: an unknown code' USING ERRCODE = 'data_corrupted';
                    END IF;
                END IF;
                IF symbol < 256 THEN
                    tail := tail || set_byte(one_byte, 0, symbol);
                    CONTINUE;
                END IF;
                EXIT WHEN symbol = 256;
                IF symbol > 285 THEN
                    RAISE EXCEPTION 'corrupt gzip data: an unknown length' USING ERRCODE = 'data_corrupted';
                END IF;
                i := length_bits[symbol - 256];
                amount := length_base[symbol - 256];
                IF i > 0 THEN
                    amount := amount + (bits & ((1 << i) - 1))::int;
                    bits := bits >> i;
                    held := held - i;
                END IF;
                IF held < 28 THEN
                    IF next + 4 > size THEN
                        RAISE EXCEPTION 'corrupt gzip data: cut short' USING ERRCODE = 'data_corrupted';
                    END IF;
                    bits := bits | ((get_byte(input, next) + 256 * get_byte(input, next + 1) + 65536 * get_byte(input, next + 2)
                        + 16777216 * get_byte(input, next + 3)::bigint) << held);
                    next := next + 4;
                    held := held + 32;
                END IF;
                symbol := distances[(bits & 511)::int];
                IF symbol > 0 THEN
                    bits := bits >> (symbol & 15);
                    held := held - (symbol & 15);
                    symbol := symbol >> 4;
                ELSE
                    code := 0; first := 0; index := 528; symbol := -1;
                    FOR i IN 1..15 LOOP
                        code := code | (bits & 1)::int;
                        bits := bits >> 1;
                        j := distances[512 + i];
                        IF code - first < j THEN
                            symbol := distances[index + code - first];
                            held := held - i;
                            EXIT;
                        END IF;
                        index := index + j;
                        first := (first + j) << 1;
                        code := code << 1;
                    END LOOP;
                END IF;
                IF symbol < 0 OR symbol > 29 THEN
                    RAISE EXCEPTION 'corrupt gzip data: an unknown distance' USING ERRCODE = 'data_corrupted';
                END IF;
                i := distance_bits[symbol + 1];
                distance := distance_base[symbol + 1];
                IF i > 0 THEN
                    distance := distance + (bits & ((1 << i) - 1))::int;
                    bits := bits >> i;
                    held := held - i;
                END IF;
                origin := output_size + length(tail) - distance;
                IF origin < 0 THEN
                    RAISE EXCEPTION 'corrupt gzip data: a distance before the start' USING ERRCODE = 'data_corrupted';
                END IF;
                IF origin + amount <= output_size THEN
                    tail := tail || substring(output FROM origin + 1 FOR amount);
                ELSE
                    IF origin < output_size THEN
                        output := output || tail;
                        output_size := length(output);
                        tail := decode('', 'hex');
                        part := substring(output FROM origin + 1 FOR amount);
                    ELSE
                        part := substring(tail FROM origin - output_size + 1 FOR amount);
                    END IF;
                    -- A copy may reach into what it copies.
                    WHILE length(part) < amount LOOP
                        part := part || part;
                    END LOOP;
                    tail := tail || substring(part FROM 1 FOR amount);
                END IF;
            END LOOP;
            EXIT blocks WHEN is_last;
        END LOOP;

        output := settled || output || tail;
        next := next - held / 8;
        IF has_dictionary THEN
            output := substring(output FROM dictionary_size + 1);
            IF next + 20 <> size OR length(output) <> get_byte(input, size - 4)::bigint + 256 * get_byte(input, size - 3)
                    + 65536 * get_byte(input, size - 2) + 16777216 * get_byte(input, size - 1)::bigint THEN
                RAISE EXCEPTION 'corrupt gzip data: length differs' USING ERRCODE = 'data_corrupted';
            END IF;
            finished := output;
            EXIT members;
        END IF;
        IF next + 8 > size THEN
            RAISE EXCEPTION 'corrupt gzip data: cut short' USING ERRCODE = 'data_corrupted';
        END IF;
        -- Built in since PostgreSQL 18.
        IF current_setting('server_version_num')::int >= 180000 THEN
            crc := crc32(output);
        ELSE
            crc := 4294967295;
            FOR i IN 0..length(output) - 1 LOOP
                crc := crc_table[((crc # get_byte(output, i)) & 255)::int + 1] # (crc >> 8);
            END LOOP;
            crc := crc # 4294967295;
        END IF;
        IF crc <> get_byte(input, next)::bigint + 256 * get_byte(input, next + 1) + 65536 * get_byte(input, next + 2)
                + 16777216 * get_byte(input, next + 3)::bigint
            OR length(output) <> get_byte(input, next + 4)::bigint + 256 * get_byte(input, next + 5) + 65536 * get_byte(input, next + 6)
                + 16777216 * get_byte(input, next + 7)::bigint THEN
            RAISE EXCEPTION 'corrupt gzip data: checksum or length differ' USING ERRCODE = 'data_corrupted';
        END IF;
        next := next + 8;
        finished := finished || output;
        EXIT members WHEN next = size;
    END LOOP;
    IF sha256(finished) IS DISTINCT FROM hash THEN
        RAISE EXCEPTION 'the text differs from what was compressed: its hash is another one' USING ERRCODE = 'data_corrupted';
    END IF;
    RETURN convert_from(finished, encoding::name);
END
$pgtend$;
